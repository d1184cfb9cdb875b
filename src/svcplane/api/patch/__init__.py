"""Patches: RFC 6902 (`json`), RFC 7386 (`merge`), strategic merge (`strategic`), server-side apply (`apply`).

`managed` keeps who owns which field.  Pure: trees in, trees out; nothing given is changed.
"""
