"""The only place that speaks SQL; it returns model objects, never rows.

Every write that can race names what it believes in its WHERE. Who moves an open task holds the row
of its node's mailbox first, so two movers of the same task meet at one lock, in one order.
"""
