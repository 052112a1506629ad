/* SPDX-License-Identifier: MIT */
/* property_breaker.c - breakers of every rule against a register of all that happened. */
#include "register.h"
#include "trial.h"

#include <stdlib.h>
#include <string.h>

enum { PAGES = 160 };

/* One call that was let out: who really is out, whatever the breaker can know of it. */
struct call { neap_ns at; int trial, over; };

struct episode {
	struct dice *d;
	struct reg reg;
	struct neap_limiter l;
	struct call call[PAGES];
	int calls;
	neap_ns now;
	int exact;   /* no two things happened at one instant so far */
};

static struct neap_breaker *breaker(struct episode *e) { return &e->l.as.breaker; }

static struct neap_trip any_trip(struct dice *d)
{
	const double ratios[] = {0, 0.07, 0.25, 1.0 / 3, 0.5, 2.0 / 3, 0.75, 1};
	struct neap_trip t = {
		.rule = (int32_t)dice_between(d, NEAP_TRIP_ROW, NEAP_TRIP_RATIO_WITHIN),
		.failures = (int32_t)dice_between(d, 1, 5),
		.calls = (int32_t)dice_any_size(d, 1, 90),
		.slices = (int32_t)dice_any_size(d, 1, 20),
		.period_ns = dice_any_size(d, 1, dice_between(d, 0, 9) ? 300 : neap_horizon),
		.ratio = ratios[dice_between(d, 0, 7)],
	};
	t.least = (int32_t)dice_between(d, 1, t.calls < 9 ? t.calls : 9);
	return t;
}

static void begin(struct episode *e, struct dice *d, int64_t *memory)
{
	struct reg *r = &e->reg;
	e->d = d;
	e->calls = r->count = 0;
	e->exact = 1;
	e->now = dice_between(d, 0, 1) ? 0 : dice_between(d, 0, 1000);
	r->cooldown_ns = dice_between(d, 0, 3) ? dice_any_size(d, 1, 200)
		       : dice_between(d, 0, 1) ? 0 : dice_any_size(d, 1, neap_horizon);
	r->patience_ns = r->cooldown_ns ? r->cooldown_ns : 1000000000;
	r->trials = (int32_t)dice_between(d, 1, 4);
	r->required = (int32_t)dice_between(d, 1, r->trials);
	e->l.kind = NEAP_BREAKER;
	if (neap_breaker_init(breaker(e), &r->trip, memory, r->cooldown_ns, r->trials, r->required))
		trial_fail("rule %d refused", r->trip.rule);
	if (!r->cooldown_ns)
		breaker(e)->patience_ns = r->patience_ns = dice_between(d, 1, 20);
}

static void write_down(struct episode *e, struct happening h)
{
	h.now = e->now;
	if (e->reg.count)
		e->exact &= e->reg.page[e->reg.count - 1].now < e->now;
	e->reg.page[e->reg.count++] = h;
}

/* In half-open the breaker's own books are true: every trial is in one of them, and a place is
 * free only when its trial is over. With one place, also exactly then. */
static void count_trials(struct episode *e)
{
	const struct neap_breaker *b = breaker(e);
	int out = 0, newest_out = 0;
	if (!e->exact || neap_breaker_state(b, e->now) != NEAP_BREAKER_HALF_OPEN)
		return;
	for (int i = 0; i < e->calls; i++)
		if (e->call[i].at >= b->ends) {
			out += !e->call[i].over;
			newest_out = !e->call[i].over;
		}
	if (b->out + b->lost != out)
		trial_fail("%d trials out and %d lost, but %d are not back", b->out, b->lost, out);
	if (b->trials == 1 && b->out != newest_out)
		trial_fail("the one place is %s", b->out ? "held by nobody" : "free, and its trial out");
}

static void compare(struct episode *e)
{
	const struct neap_breaker *b = breaker(e);
	struct reg_view v = reg_look(&e->reg, e->now);
	int state = neap_breaker_state(b, e->now);
	int64_t changes = b->changes + (state == NEAP_BREAKER_HALF_OPEN);
	if (state != v.state || neap_breaker_since(b, e->now) != v.since || changes != v.changes)
		trial_fail("at %ld state %d since %ld, change %ld; not %d since %ld, change %ld",
			   e->now, state, neap_breaker_since(b, e->now), changes, v.state, v.since,
			   v.changes);
	if (neap_breaker_failures(b, e->now) != v.failures)
		trial_fail("at %ld %ld failures, not %ld, rule %d", e->now,
			   neap_breaker_failures(b, e->now), v.failures, b->trip.rule);
	int64_t cost = dice_any_size(e->d, 1, INT64_C(1) << 59);
	neap_ns when = neap_limiter_when(&e->l, cost, e->now);
	if (when != v.when)
		trial_fail("at %ld when %ld, not %ld, state %d", e->now, when, v.when, state);
	if (when > e->now && when < neap_horizon &&
	    (neap_limiter_when(&e->l, cost, when) != when ||
	     neap_limiter_when(&e->l, cost, when - 1) != when))
		trial_fail("%ld is not tight", when);
	if (neap_limiter_available(&e->l, e->now) != (when > e->now ? 0 : INT64_MAX))
		trial_fail("available %ld", neap_limiter_available(&e->l, e->now));
	if (state == NEAP_BREAKER_HALF_OPEN && (b->out != v.out || b->lost != v.lost))
		trial_fail("%d out, %d lost, not %d and %d", b->out, b->lost, v.out, v.lost);
	count_trials(e);
}

static void attempt(struct episode *e)
{
	struct neap_breaker was = *breaker(e);
	int trial = neap_breaker_state(&was, e->now) == NEAP_BREAKER_HALF_OPEN;
	if (neap_limiter_take(&e->l, dice_between(e->d, 1, 9), e->now) > e->now) {
		if (memcmp(&was, breaker(e), sizeof was))
			trial_fail("a refused take left a trace");
		return;
	}
	write_down(e, (struct happening){.what = REGISTER_TAKE});
	e->call[e->calls++] = (struct call){e->now, trial, 0};
}

static void report(struct episode *e)
{
	struct call *c = &e->call[dice_between(e->d, 0, e->calls - 1)];
	int outcome = (int)dice_between(e->d, NEAP_SUCCESS, NEAP_IGNORE);
	if (!dice_between(e->d, 0, 2))
		c = &e->call[e->calls - 1];
	if (c->over)
		return;
	c->over = 1;
	write_down(e, (struct happening){REGISTER_GIVE, 0, outcome, c->at});
	if (outcome == NEAP_IGNORE && dice_between(e->d, 0, 1))   /* an undone take says as little */
		neap_limiter_settle(&e->l, 3, 0, c->at, e->now);
	else
		neap_limiter_give(&e->l, 3, outcome, c->at, e->now);
	neap_limiter_settle(&e->l, 3, 5, c->at, e->now);   /* how heavy it was does not matter */
}

static void by_hand(struct episode *e)
{
	neap_ns until = dice_between(e->d, 0, 3) ? e->now + dice_any_size(e->d, 1, 100) - 1
		      : dice_between(e->d, 0, 1) ? neap_never : e->now - 5;
	switch (dice_between(e->d, 0, 2)) {
	case 0:
		write_down(e, (struct happening){REGISTER_OPEN, 0, 0, until});
		neap_breaker_open(breaker(e), until, e->now);
		break;
	case 1:
		write_down(e, (struct happening){.what = REGISTER_CLOSE});
		neap_breaker_close(breaker(e), e->now);
		break;
	case 2:
		write_down(e, (struct happening){.what = REGISTER_RESET});
		neap_breaker_reset(breaker(e), e->now);
	}
}

static void pass(struct episode *e, int pace)
{
	neap_ns hint = neap_limiter_when(&e->l, 1, e->now), now = e->now;
	neap_ns period = e->reg.trip.period_ns;
	switch (dice_between(e->d, 0, 5)) {
	case 0: now += dice_between(e->d, 0, period < 300 ? period : 9); break;
	case 1: now = hint; break;
	case 2: now = hint - 1; break;
	case 3: now += pace ? dice_any_size(e->d, 1, 40) : 0; break;
	default: now += pace;
	}
	if (now > e->now && now < neap_horizon / 2)
		e->now = now;
}

static void episode(struct dice *d)
{
	static struct episode e;
	e.reg.trip = any_trip(d);
	int64_t words = neap_trip_words(&e.reg.trip);
	/* on the heap and no larger, so that a sanitizer sees a step beyond it */
	int64_t *memory = malloc((size_t)words * sizeof *memory);
	if (words < 0 || (words && !memory))
		trial_fail("%ld words", words);
	for (int64_t i = 0; i < words; i++)
		memory[i] = (int64_t)dice_throw(d);
	begin(&e, d, memory);
	int pace = (int)dice_between(d, 0, 2), calm = (int)dice_between(d, 4, 40);
	for (int step = 0; e.reg.count < PAGES - 1 && step < 3 * PAGES; step++) {
		pass(&e, pace);
		if (!dice_between(d, 0, calm))
			by_hand(&e);
		else if (e.calls && dice_between(d, 0, 9) < 5)
			report(&e);
		else
			attempt(&e);
		compare(&e);
	}
	free(memory);
}

static void breakers_remember(struct dice *d)
{
	for (int64_t ops = trial_ops(10000000); ops > 0; ops -= 500)
		episode(d);
}

/* ---- slices ---- */

/* Whatever the slices are, what came within a period less one slice counts, and nothing older than
 * a period does. */
static void slices_are_honest(struct dice *d)
{
	for (int64_t ops = trial_ops(200000); ops > 0; ops -= 200) {
		int64_t memory[3 * 12];
		neap_ns came[200], now = 0;
		struct neap_trip t = {
			.rule = NEAP_TRIP_RATIO_WITHIN, .least = INT32_MAX, .ratio = 1,
			.slices = (int32_t)dice_between(d, 1, 12), .period_ns = dice_any_size(d, 1, 5000),
		};
		struct neap_breaker b;
		if (neap_breaker_init(&b, &t, memory, 1, 1, 1))
			trial_fail("refused");
		int64_t pace = dice_any_size(d, 1, t.period_ns);
		neap_ns slice = (t.period_ns + t.slices - 1) / t.slices;
		for (int n = 0; n < 200; n++) {
			now += dice_between(d, 0, pace);
			came[n] = now;
			neap_breaker_give(&b, NEAP_FAILURE, now, now);
			neap_ns look = now + dice_between(d, 0, t.period_ns);
			int64_t least = 0, most = 0, got = neap_breaker_failures(&b, look);
			for (int i = 0; i <= n; i++) {
				least += look - came[i] <= t.period_ns - slice;
				most += look - came[i] < t.period_ns;
			}
			if (got < least || got > most || (pace == 0 && got != most))
				trial_fail("%ld failures at %ld, of %ld to %ld", got, look, least, most);
		}
	}
}

/* ---- bounds ---- */

static void bounds_are_refused(struct dice *d)
{
	(void)d;
	const double nan = __builtin_nan("");
	const struct neap_trip bad[] = {
		{.rule = 0, .failures = 1}, {.rule = 5, .failures = 1, .least = 1},
		{.rule = NEAP_TRIP_ROW, .failures = 0}, {.rule = NEAP_TRIP_ROW, .failures = -1},
		{.rule = NEAP_TRIP_WITHIN, .failures = 0, .period_ns = 1},
		{.rule = NEAP_TRIP_WITHIN, .failures = (1 << 24) + 1, .period_ns = 1},
		{.rule = NEAP_TRIP_WITHIN, .failures = 1, .period_ns = 0},
		{.rule = NEAP_TRIP_WITHIN, .failures = 1, .period_ns = neap_horizon + 1},
		{.rule = NEAP_TRIP_RATIO, .calls = 0, .least = 1, .ratio = 0.5},
		{.rule = NEAP_TRIP_RATIO, .calls = 4, .least = 5, .ratio = 0.5},
		{.rule = NEAP_TRIP_RATIO, .calls = 4, .least = 0, .ratio = 0.5},
		{.rule = NEAP_TRIP_RATIO, .calls = 4, .least = 1, .ratio = -0.5},
		{.rule = NEAP_TRIP_RATIO, .calls = 4, .least = 1, .ratio = 1.01},
		{.rule = NEAP_TRIP_RATIO, .calls = 4, .least = 1, .ratio = nan},
		{.rule = NEAP_TRIP_RATIO_WITHIN, .slices = 0, .least = 1, .ratio = 1, .period_ns = 1},
		{.rule = NEAP_TRIP_RATIO_WITHIN, .slices = 1, .least = 0, .ratio = 1, .period_ns = 1},
		{.rule = NEAP_TRIP_RATIO_WITHIN, .slices = 1, .least = 1, .ratio = nan, .period_ns = 1},
	};
	struct neap_trip good = {.rule = NEAP_TRIP_WITHIN, .failures = 3, .period_ns = neap_horizon};
	struct neap_breaker b, was;
	int64_t memory[64];
	memset(&b, 0x5A, sizeof b);
	was = b;
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
		if (neap_trip_words(&bad[i]) != NEAP_ERANGE ||
		    neap_breaker_init(&b, &bad[i], memory, 1, 1, 1) != NEAP_ERANGE)
			trial_fail("rule %u is accepted", i);
	if (!neap_breaker_init(&b, &good, NULL, 1, 1, 1) ||
	    !neap_breaker_init(&b, &good, memory, -1, 1, 1) ||
	    !neap_breaker_init(&b, &good, memory, neap_horizon + 1, 1, 1) ||
	    !neap_breaker_init(&b, &good, memory, 1, 0, 1) ||
	    !neap_breaker_init(&b, &good, memory, 1, 1, 0) ||
	    !neap_breaker_init(&b, &good, memory, 1, 1, 2))
		trial_fail("a breaker without memory, or with half a cooldown or trial");
	if (memcmp(&b, &was, sizeof b))
		trial_fail("a refused _init wrote something");
	if (neap_trip_words(&good) != 3 || neap_breaker_init(&b, &good, memory, neap_horizon, 1, 1))
		trial_fail("the longest is refused");
}

int main(void)
{
	trial_run("a breaker refuses what makes no sense and touches nothing", bounds_are_refused);
	trial_run("a breaker answers like a register of all that happened", breakers_remember);
	trial_run("slices count what is young and nothing that is old", slices_are_honest);
	return trial_verdict();
}
