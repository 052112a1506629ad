/* SPDX-License-Identifier: MIT */
/* register.h - the oracle of breaker: all that ever happened, gone through anew for each question.
 *
 * No ring, no bits, no running counts, no computed state. Half-open is entered when time reaches
 * it, like a room; a failure is judged by looking at every outcome since the breaker closed. What
 * the header says of late outcomes and of trials that are presumed lost is asked of the list of
 * trials as it stands.
 */
#ifndef REGISTER_H
#define REGISTER_H

#include "neap.h"

enum { REGISTER_PAGES = 512 };
enum { REGISTER_TAKE, REGISTER_GIVE, REGISTER_OPEN, REGISTER_CLOSE, REGISTER_RESET };

struct happening {
	int what;
	neap_ns now;
	int outcome;      /* GIVE */
	neap_ns at;       /* GIVE: of its grant; OPEN: until */
};

struct reg {
	struct neap_trip trip;
	neap_ns cooldown_ns, patience_ns;
	int32_t trials, required;
	int count;
	struct happening page[REGISTER_PAGES];
};

struct reg_view {
	int state;
	neap_ns since, when;
	int64_t changes, failures;
	int out, lost;
};

/* How things stand at 'now', no earlier than the last page. */
struct reg_view reg_look(const struct reg *r, neap_ns now);

#endif
