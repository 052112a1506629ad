/* SPDX-License-Identifier: MIT */
/* diary.h - the oracle of window: every grant ever, added up anew for each question.
 *
 * No ring, no running sum. What the header says is asked of the diary as it stands: a grant counts
 * until one window after it came, grants of one instant share an entry, the log has 'size' of
 * them, and an entry is forgotten when a take finds that it has left, or a settle takes all of it
 * back. What came with an instant that was past shares the last entry, and is settled in the first
 * that is later.
 */
#ifndef DIARY_H
#define DIARY_H

#include "neap.h"

enum { DIARY_PAGES = 4096 };

struct diary {
	int64_t limit;
	neap_ns window_ns;
	uint32_t size;                            /* entries the log has */
	int count;
	int gone;                                 /* entries up to here left before some take */
	neap_ns sealed;                           /* the latest instant of those; neap_horizon: new */
	struct neap_stamp entry[DIARY_PAGES];
};

void diary_init(struct diary *d, int64_t limit, neap_ns window_ns, uint32_t size);
int64_t diary_available(const struct diary *d, neap_ns now);
neap_ns diary_when(const struct diary *d, int64_t cost, neap_ns now);
/* It begins anew, and knows of nothing before. */
void diary_begin_anew(struct diary *d);
/* What has left by now does not count any more, whatever the window will be. */
void diary_forget(struct diary *d, neap_ns now);
void diary_take(struct diary *d, int64_t cost, neap_ns now);
void diary_settle(struct diary *d, int64_t cost, int64_t used, neap_ns at);
/* The most tokens that any span of one window has seen. */
int64_t diary_fullest_span(const struct diary *d);

#endif
