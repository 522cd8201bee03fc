"""The REST door: shapes in, services called, envelope out.

``door`` is the outermost layer (bounds, request ids, the hot route), ``app`` the routes behind it,
one noun a file. A route holds no rule and no SQL.
"""
