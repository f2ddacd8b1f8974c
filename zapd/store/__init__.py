"""The registry in SQL: tables, repositories, the change log, and how memory keeps up with them.

Knows nothing of who may change what, nor of deciding; see `zapd.admin` and `zapd.auth`.
"""
