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
/* One that is new, with so many bytes for logs and tables; 0: as many as is usual. */
struct neap_segment *shared_fresh(int64_t log_bytes);
/* A rate; and the keys of a name, each with a limit like it. */
struct neap_limiter shared_rate(int64_t amount, neap_ns period_ns, int64_t burst);
struct neap_keyed *shared_keyed(struct neap_segment *s, const char *name,
				const struct neap_limiter *like, int64_t count_max, int full,
				int64_t generation);
/* A key as hashes are: spread over all 64 bits. */
uint64_t shared_key(int64_t n);
/* A failed trial, if they are not the same; if an invariant does not hold. */
void shared_told(const char *what, int64_t is, int64_t should);
void shared_whole(struct neap_segment *s);
/* Fork. The child is killed with its parent. */
pid_t shared_fork(void);
/* Wait for its end: its exit status, or 128 and the signal. */
int shared_wait(pid_t child);
int shared_kill(pid_t child);

#endif
