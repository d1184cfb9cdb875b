"""The iptables plane's pure part: names, and one service port compiled to chains."""
