"""HTTP/1.1 where a framework would cost too much: one connection as it is used by either end.

``outgoing`` asks, ``incoming`` is asked, ``answers`` are answers as bytes, and ``bounds`` puts
bounds on the protocol of uvicorn.
"""
