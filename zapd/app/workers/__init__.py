"""Several processes that answer, under one parent: ``[server] workers`` above 1.

The *parent* (`parent`) owns the listeners, the registry's changes, the SQL copy and the admin API, and decides
nothing. Each *worker* (`worker`, started as ``python -m zapd.app.workers``) has a registry in memory, backends and
a journal of its own, and answers on connections that the parent has accepted and handed over.

    clients ─▶ parent: entrances ──descriptors──▶ worker 1 ─▶ journal
                       crew ◀──channel (msgpack)─▶ worker 2 ─▶ journal

`channel` carries `messages` both ways; a `seat` keeps one worker running, the `crew` all of them; `joining` adds
up what they count; `sharing` divides what is bounded in all.

The parent tells, and waits until it is done: changes, reloads, draining, the end. Workers tell it of their
connections, and of unknown keys that somebody may approve. A worker whose parent is gone ends itself, and one that
does not answer is killed and replaced.
"""
