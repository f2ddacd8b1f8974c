"""Files of many keys or users: how their rows are written and read. No service, no SQL, no HTTP."""
