/* SPDX-License-Identifier: MIT */
/* property_budget.c - budget against a list of everything that happened. */
#include "neap.h"
#include "trial.h"

#include <math.h>
#include <string.h>

enum { MOST_EVENTS = 400 };

struct happened { neap_ns at; int extra; };

static struct {
	struct happened event[MOST_EVENTS];
	int count;
} list;

/* How many there were in the 'span' that ends with 'now', its beginning left out. */
static int64_t within(neap_ns now, double span, int extra)
{
	int64_t n = 0;
	for (int i = 0; i < list.count; i++)
		n += list.event[i].extra == extra && (double)(now - list.event[i].at) < span;
	return n;
}

static void episode(struct dice *d)
{
	struct neap_budget b;
	neap_ns period = dice_any_size(d, 1, 100000), now = dice_any_size(d, 1, neap_horizon / 2);
	double share = (double)dice_between(d, 0, 150) / 100;
	int64_t least = dice_between(d, 0, 5);
	if (neap_budget_share(&b, share, least, period))
		trial_fail("refused");
	double slice = ceil((double)period / 16);
	list.count = 0;
	while (list.count < MOST_EVENTS) {
		now += dice_between(d, 0, 2) ? dice_between(d, 0, period / 10) : dice_any_size(d, 1, 2 * period);
		struct happened e = {now, dice_between(d, 0, 1) != 0};
		if (!e.extra) {
			neap_budget_call(&b, now);
			list.event[list.count++] = e;
			continue;
		}
		/* what could be had at most, and what must be had */
		double most = (double)least + share * (double)within(now, 16 * slice, 0);
		double must = (double)least + share * (double)within(now, 15 * slice, 0);
		int64_t extras = within(now, 16 * slice, 1);
		int64_t counted = within(now, 17 * slice, 1);
		int64_t told = neap_budget_left(&b, now);
		int goes = neap_budget_take(&b, 0, now);
		if (goes != (told >= 1))
			trial_fail("%ld left, and take says %d", told, goes);
		if (goes && (double)(extras + 1) > most + 1e-9)
			trial_fail("one more than %ld, where %g are %g of the calls", extras, most, share);
		if (!goes && (double)(counted + 1) <= must - 1e-9)
			trial_fail("refused, with %ld of %g", counted, must);
		if (goes)
			list.event[list.count++] = e;
		else if (dice_between(d, 0, 3) == 0)
			now += period;
	}
}

static void never_more_than_its_share(struct dice *d)
{
	for (int64_t ops = trial_ops(200000); ops > 0; ops -= MOST_EVENTS)
		episode(d);
}

static void tokens_are_a_purse(struct dice *d)
{
	for (int64_t ops = trial_ops(300000); ops > 0; ops -= 100) {
		struct neap_budget b;
		int64_t most = dice_any_size(d, 1, 1000000), above = dice_between(d, 0, most), has = most;
		if (neap_budget_tokens(&b, most, above))
			trial_fail("refused");
		for (int i = 0; i < 100; i++) {
			int64_t n = dice_any_size(d, 1, most + 3) - 1;
			switch (dice_between(d, 0, 2)) {
			case 0:
				if (neap_budget_take(&b, n, i) != (has >= n && has > above))
					trial_fail("%ld of %ld, above %ld", n, has, above);
				has -= has >= n && has > above ? n : 0;
				break;
			case 1:
				neap_budget_add(&b, n);
				has = has + n < most ? has + n : most;
				break;
			case 2:
				neap_budget_add(&b, -n);
				has = has > n ? has - n : 0;
			}
			neap_budget_call(&b, i);
			if (neap_budget_left(&b, i) != has)
				trial_fail("%ld left, not %ld", neap_budget_left(&b, i), has);
		}
	}
}

/* Time goes back, and nothing is counted twice or forgotten. */
static void a_clock_steps_back(struct dice *d)
{
	struct neap_budget b;
	(void)d;
	neap_budget_share(&b, 0.5, 0, 1600);
	for (int i = 0; i < 4; i++)
		neap_budget_call(&b, 10000);
	if (!neap_budget_take(&b, 0, 9000) || neap_budget_left(&b, 100) != 1 ||
	    neap_budget_left(&b, 10000) != 1 || !neap_budget_take(&b, 0, 100) ||
	    neap_budget_take(&b, 0, 9000) || neap_budget_take(&b, 0, 10000))
		trial_fail("not two of four");
	if (neap_budget_left(&b, neap_horizon - 1))
		trial_fail("calls of long ago count");
	struct neap_budget idle;
	neap_budget_share(&idle, 0, 3, neap_horizon);
	if (neap_budget_left(&idle, neap_horizon - 1) != 3)
		trial_fail("the longest period");
}

static void nonsense_is_refused(struct dice *d)
{
	struct neap_budget b, was;
	(void)d;
	memset(&b, 0x5A, sizeof b);
	was = b;
	int64_t most = INT64_C(1) << 50;
	if (!neap_budget_tokens(&b, -1, 0) || !neap_budget_tokens(&b, 5, 6) ||
	    !neap_budget_tokens(&b, 5, -1) || !neap_budget_tokens(&b, most + 1, 0) ||
	    !neap_budget_share(&b, -0.1, 0, 1) || !neap_budget_share(&b, NAN, 0, 1) ||
	    !neap_budget_share(&b, 1e7, 0, 1) || !neap_budget_share(&b, 1, -1, 1) ||
	    !neap_budget_share(&b, 1, most + 1, 1) || !neap_budget_share(&b, 1, 1, 0) ||
	    !neap_budget_share(&b, 1, 1, neap_horizon + 1))
		trial_fail("one is accepted");
	if (memcmp(&b, &was, sizeof b))
		trial_fail("a refused one wrote something");
	if (neap_budget_tokens(&b, most, most) || neap_budget_tokens(&b, 0, 0) ||
	    neap_budget_take(&b, 0, 0))
		trial_fail("the largest and the least");
}

int main(void)
{
	trial_run("a budget refuses what makes no sense and touches nothing", nonsense_is_refused);
	trial_run("a share is never exceeded, and can be had but for a 16th", never_more_than_its_share);
	trial_run("tokens are spent, given and lost between 0 and most", tokens_are_a_purse);
	trial_run("a clock that steps back neither forgets nor counts twice", a_clock_steps_back);
	return trial_verdict();
}
