"""Netlink framing and sockets for the packages that speak it.

codec   attributes and messages                                  PURE
run     a socket: requests that are acknowledged, and dumps
"""
