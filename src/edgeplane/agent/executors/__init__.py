"""What carries a task out at the edge, behind one protocol.

An executor knows how to make an effect and how to tell whether it was made. Journal, time limits
and who may ask are not its business.
"""
