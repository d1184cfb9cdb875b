"""A small scheduler: binds Pods without a node to a ready one.

choose   which node for a Pod (PURE)
loop     unbound Pods -> bindings
"""
