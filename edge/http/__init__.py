"""The HTTP door of the edge: Open Inference Protocol v2, status and metrics, on the loopback only.

Read in this order: wire (a request and a response as plain values), tensors (numbers on the wire), oip (what
a request means), pages (which path leads where), metrics, capacity (how much at once), parsing (one
connection), server (the socket and its thread).
"""
