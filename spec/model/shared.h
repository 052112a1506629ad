/* SPDX-License-Identifier: MIT */
/* shared.h - segments for tests: of a name that is no other test's, and limiters of each kind. */
#ifndef SHARED_H
#define SHARED_H

#include "neap.h"

#include <sys/types.h>

/* A path for this process, in /dev/shm; removed at its end. */
const char *shared_path(void);
/* Open it with these options, or with the usual ones; whatever fails is a failed trial. */
struct neap_segment *shared_open(const struct neap_segment_options *options);
/* A limiter of each kind, as _init makes it. 'limit' tokens, permits, failures. */
struct neap_limiter shared_like(int kind, int64_t limit);
struct neap_limiter *shared_add(struct neap_segment *s, const char *name, int kind, int64_t limit);
/* Fork. The child is killed with its parent. */
pid_t shared_fork(void);
/* Wait for its end: its exit status, or 128 and the signal. */
int shared_wait(pid_t child);
int shared_kill(pid_t child);

#endif
