"""The engine: it claims mailboxes, delivers what is due, and settles what came back.

``engine`` has the one loop and the one life cycle; ``turns`` the transaction of each turn;
``runner`` the delivery of one task; ``hints`` the wake-ups. Whether and when a task is tried again
is decided in ``model.retry``, what may begin at a node in ``model.lanes``: nothing here decides it.
"""
