"""One use case a method: who may, what changes, what is recorded. No HTTP here."""
