/* SPDX-License-Identifier: MIT */
/* pilot.h - the oracle of adaptive: a log of all that ever happened, read anew for each question.
 *
 * No sums, no halves, no last instants. What is in use is added up over the calls that are out; the
 * best latency is sought among all samples, the mean worked out from the first; whether the limit
 * was reached, cut or lowered since a call was granted is looked up in the log. Numbers are long
 * doubles, which hold a permit of 2^59, and a queue is what is left of the limit when those that
 * the best latency has room for are taken away.
 *
 * Where a rule ends in a product of doubles, it and a product of long doubles may lie on the two
 * sides of a whole number. So the answer is a range, mostly of one number, and the pilot goes on
 * with whatever the limit became. A mean within rounding of twice a sample is on either side of a
 * rule that shortens it by a tenth: from then on the pilot does not know, and says so.
 */
#ifndef PILOT_H
#define PILOT_H

#include "neap.h"

enum { PILOT_PAGES = 4096 };

struct pilot {
	struct neap_strategy s;
	int64_t floor, ceiling, limit;
	long double estimate;
	int unsure;
	int out;                       /* calls */
	struct neap_stamp call[PILOT_PAGES];
	int count;
	struct pilot_page {
		int what;
		neap_ns at;
		neap_ns rtt;           /* of a SAMPLE, which is a success */
	} page[PILOT_PAGES];
};

void pilot_init(struct pilot *p, const struct neap_strategy *s, int64_t floor, int64_t ceiling,
		int64_t initial);
int64_t pilot_in_use(const struct pilot *p);
neap_ns pilot_when(const struct pilot *p, int64_t cost, neap_ns now);
void pilot_take(struct pilot *p, int64_t cost, neap_ns now);
/* Call i has ended: where may the limit, its fraction included, be now? */
void pilot_give(struct pilot *p, int i, int outcome, neap_ns now, long double *low,
		long double *high);
/* It is there now. */
void pilot_moved(struct pilot *p, int64_t limit, double fraction, neap_ns now);

#endif
