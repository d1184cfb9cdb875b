"""KubeProxyConfiguration, as a file or as flags -> Settings.  Pure.

`wire` is the format, `defaults` fills it, `validation` judges it, `load` reads and writes it, `flags` maps kube-proxy's
flags onto it, `choice` takes from it what the proxy does.
"""
