"""Signed tokens (JWT, RFC 7519) of an issuer: its keys, where they come from, and what a token must be.

Needs PyJWT and cryptography (the extra ``zapd[jwt]``). Who a token's subject is here, and what becomes of it,
is not known in this folder.
"""
