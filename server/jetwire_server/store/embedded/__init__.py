"""The store that lasts: `store` puts it together; `checkpoint` and `recovery` are the two ways between log and pages."""
