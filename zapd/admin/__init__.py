"""Administration: use cases in `services`, and over them the REST skin in `api`."""
