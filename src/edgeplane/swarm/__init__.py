"""Thousands of simulated agents in one process: what a fleet does, without a fleet.

An agent of the swarm is a local loopback address. It speaks the agent's protocol and keeps the
agent's promises (a journal before effect and answer, one effect per request, epochs); its effect is
a line in a file. Faults are drawn from a seed. How requests arrive is the business of
``push`` (agents listen) or ``sync`` (they connect out); what the agents do with them, ``fleet``'s.
"""
