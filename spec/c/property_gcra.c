/* SPDX-License-Identifier: MIT */
/* property_gcra.c - gcra against the bucket it claims to be, on random traffic.
 *
 * Three promises, in this order of strictness:
 *
 *   the same      Against a bucket that reads the engine's own rounded clock every decision, every
 *                 wait and every balance is equal. The wait is tight: at that nanosecond the
 *                 call conforms, one before it does not.
 *   no drift      Against the ideal bucket, which rounds nothing, it is never late, and early by at
 *                 most a grain: what drips in during one nanosecond, or one unit where that is
 *                 more (a burst so large for its rate that finer units would pass 2^60).
 *                 Both run for the whole episode, so an error that added up would show.
 *   no more       What was admitted since the start is at most burst + rate * (time + a grain).
 *
 * An episode is one limiter and up to 16,384 operations on a clock that stands still, creeps,
 * jumps to the announced instant or right before it, idles for up to years, or steps back.
 */
#include "bucket.h"
#include "trial.h"

#include <string.h>

static const neap_ns SECOND = 1000000000, DAY = 86400 * SECOND, YEAR = 365 * DAY;
static const int64_t MOST = INT64_C(1) << 59;   /* the largest cost */

struct pair {
	struct neap_limiter limiter;
	struct neap_gcra *g;
	struct bucket same, ideal;
	int64_t amount, burst;
	neap_ns period_ns, grain_ns;
	ticks grain;              /* in ticks of the ideal bucket */
	neap_ns now, hint, since, latest;
	ticks admitted, most;     /* tokens since 'since', when at most 'most' were there */
};

static int64_t prime_from(int64_t n)
{
	for (;; n++) {
		int64_t d = 2;
		while (d * d <= n && n % d)
			d++;
		if (d * d > n && n > 1)
			return n;
	}
}

static void any_rate(struct dice *d, int64_t *amount, neap_ns *period_ns)
{
	static const int64_t spans[] = {1, 1000000, 1000000000, 60000000000, 3600000000000};
	switch (dice_between(d, 0, 5)) {
	case 0:
		*amount = 1, *period_ns = 30 * DAY;
		break;
	case 1:
		*amount = 5000000000, *period_ns = SECOND;
		break;
	case 2:
		*amount = prime_from(dice_any_size(d, 2, 1000000));
		*period_ns = prime_from(dice_any_size(d, (*amount + 5) / 6, INT64_C(1) << 31));
		break;
	case 3:
		*period_ns = spans[dice_between(d, 0, 4)];
		*amount = dice_any_size(d, 1, *period_ns > 1 ? *period_ns : 6);
		break;
	case 4:
		*period_ns = dice_any_size(d, 1, 30 * DAY);
		*amount = dice_any_size(d, 1, *period_ns * 6);
		break;
	default:
		*period_ns = dice_any_size(d, 1, neap_horizon);
		*amount = dice_any_size(d, 1, *period_ns < MOST / 6 ? *period_ns * 6 : MOST - 1);
	}
}

static void any_limiter(struct dice *d, struct pair *p)
{
	any_rate(d, &p->amount, &p->period_ns);
	p->burst = dice_between(d, 0, 3) ? dice_any_size(d, 1, 1 << 20) : dice_any_size(d, 1, MOST - 1);
	if (!dice_between(d, 0, 3))
		p->burst = 1;
	p->limiter.kind = NEAP_GCRA;
	p->g = &p->limiter.as.gcra;
	if (neap_gcra_init(p->g, p->amount, p->period_ns, p->burst))
		trial_fail("%ld per %ld burst %ld: refused", p->amount, p->period_ns, p->burst);
	p->same = bucket_ticking(p->amount, p->period_ns, p->burst, p->g->shift);
	p->ideal = bucket_ideal(p->amount, p->period_ns, p->burst);
	p->grain = ((ticks)p->period_ns >> p->g->shift) + 1;
	p->grain_ns = (neap_ns)(p->grain / p->amount) + 1;
	if (p->grain < p->amount)
		p->grain = p->amount;
	p->now = p->latest = p->since = dice_between(d, 0, 1) ? 0 : dice_any_size(d, 1, 20 * YEAR);
	p->hint = p->now;
	p->admitted = 0;
	p->most = p->burst;
}

/* A unit drips in within a nanosecond, unless the burst would leave 2^60. */
static void expect_fine_units(const struct pair *p)
{
	ticks units = (ticks)p->amount << p->g->shift;   /* in a period */
	if (units < p->period_ns && p->g->burst < INT64_C(1) << 59)
		trial_fail("coarse units: %ld per %ld, shift %d", p->amount, p->period_ns, p->g->shift);
	if (p->g->shift && units * 1000000000 / p->period_ns >= (ticks)1 << 31)
		trial_fail("units finer than needed: shift %d", p->g->shift);
	if ((ticks)p->burst << p->g->shift != p->g->burst || p->g->burst >= INT64_C(1) << 60)
		trial_fail("burst %ld is not %ld << %d", p->g->burst, p->burst, p->g->shift);
}

static void move_clock(struct dice *d, struct pair *p)
{
	neap_ns to = p->now;
	switch (dice_between(d, 0, 9)) {
	case 0: case 1:
		to += dice_between(d, 1, 3);
		break;
	case 2: case 3:
		to = p->hint;
		break;
	case 4:
		to = p->hint - 1;
		break;
	case 5:
		to += dice_any_size(d, 1, 2 * (p->period_ns / p->amount + 1));
		break;
	case 6:
		to += dice_any_size(d, 1, dice_between(d, 0, 9) ? SECOND : YEAR);
		break;
	case 7:
		to -= dice_between(d, 0, 3) ? 1 : dice_any_size(d, 1, SECOND);
		break;
	}
	if (to >= 0 && to < neap_horizon - 1 && to - p->since <= 10 * YEAR)
		p->now = to;
	p->latest = p->now > p->latest ? p->now : p->latest;
	p->since = p->now < p->since ? p->now : p->since;   /* the bucket was full then, too */
}

static int64_t any_cost(struct dice *d, const struct pair *p)
{
	switch (dice_between(d, 0, 7)) {
	case 0: return 0;
	case 1: return p->burst;
	case 2: return p->burst < MOST ? p->burst + 1 : MOST;
	case 3: return dice_any_size(d, 1, MOST);
	case 4: return dice_any_size(d, 1, p->burst);
	default: return 1;
	}
}

_Noreturn static void wrong(const struct pair *p, int64_t cost, const char *what, int64_t got,
			    int64_t want)
{
	trial_fail("%s: %ld, not %ld; %ld per %ld ns burst %ld, cost %ld at %ld", what, got, want,
		   p->amount, p->period_ns, p->burst, cost, p->now);
}

/* What both buckets say about the engine's answer; the hint is remembered for a later jump. */
static void compare(struct pair *p, int64_t cost, neap_ns at)
{
	if (cost > p->burst) {
		if (at != neap_never)
			wrong(p, cost, "above the burst", at, neap_never);
		return;
	}
	neap_ns same = bucket_when(&p->same, cost, p->now), ideal = bucket_when(&p->ideal, cost, p->now);
	if (at != same)
		wrong(p, cost, "not what the bucket says", at, same);
	if (at > ideal)
		wrong(p, cost, "late", at, ideal);
	if (ideal - at > p->grain_ns && at < neap_horizon)
		wrong(p, cost, "early", at, ideal);
	if (at > p->now && at < neap_horizon &&
	    (neap_gcra_when(p->g, cost, at) != at || neap_gcra_when(p->g, cost, at - 1) != at))
		wrong(p, cost, "a hint that is not tight", at, neap_gcra_when(p->g, cost, at - 1));
	p->hint = at;
}

static void admit(struct pair *p, int64_t cost)
{
	p->admitted += cost;
	if ((p->admitted - p->most) * p->period_ns >
	    (ticks)p->amount * (p->latest - p->since) + p->grain)
		wrong(p, cost, "over-admitted", (int64_t)p->admitted, (int64_t)p->most);
}

static void take(struct pair *p, int64_t cost)
{
	neap_ns at = neap_gcra_when(p->g, cost, p->now);
	int64_t tat = p->g->tat;
	compare(p, cost, at);
	neap_ns got = neap_gcra_take(p->g, cost, p->now);
	if (got != at)
		wrong(p, cost, "take and when disagree", got, at);
	if (at > p->now) {
		if (p->g->tat != tat)
			wrong(p, cost, "a refused take moved the word", p->g->tat, tat);
		return;
	}
	if (p->g->tat < tat)
		wrong(p, cost, "a take moved tat to the left", p->g->tat, tat);
	bucket_take(&p->same, cost, p->now);
	if (bucket_level(&p->ideal, p->now) < cost * p->ideal.token - p->grain)
		wrong(p, cost, "granted early by more than a grain", p->now, p->hint);
	bucket_take(&p->ideal, cost, p->now);
	admit(p, cost);
}

/* Stand in line until the hint and be charged for the exact moment; or for longer, because of some
 * other limiter, and then be charged as anybody at that instant. */
static void claim(struct dice *d, struct pair *p, int64_t cost)
{
	const struct neap_term term = {&p->limiter, 1, 0, 0};
	const struct neap_all all = {&term, 1, 0, NULL};
	neap_ns at = neap_gcra_when(p->g, cost, p->now);
	if (cost == 0 || at <= p->now || at > p->since + 10 * YEAR || at >= neap_horizon - 3)
		return;
	int32_t bound;
	if (neap_all_claim(&all, &cost, at - 1, &bound) != at || bound != 0)
		wrong(p, cost, "claimed 1 ns early", at - 1, at);
	if (!dice_between(d, 0, 3))
		at += dice_between(d, 1, 3);
	int waited = bucket_level(&p->same, at - 1) >= cost * p->same.token;
	if (neap_all_claim(&all, &cost, at, &bound) != at || bound != -1)
		wrong(p, cost, "refused at the promised instant", bound, at);
	p->now = at;
	p->latest = at > p->latest ? at : p->latest;
	if (waited) {
		bucket_take(&p->same, cost, at);
		bucket_take(&p->ideal, cost, at);
	} else {
		bucket_claim(&p->same, cost);
		bucket_claim(&p->ideal, cost);
	}
	admit(p, cost);
}

static void settle(struct dice *d, struct pair *p, int64_t cost)
{
	int64_t used = dice_between(d, 0, 1) ? dice_between(d, 0, cost) : any_cost(d, p);
	ticks left = bucket_level(&p->same, p->now) - (used - cost) * p->same.token;
	if (cost > p->burst || left < -p->same.full)
		return;   /* the far end of the number line has a trial of its own */
	neap_gcra_settle(p->g, cost, used, p->now);
	bucket_settle(&p->same, cost, used, p->now);
	bucket_settle(&p->ideal, cost, used, p->now);
	p->admitted += used - cost;
	if (used > cost)
		p->most += used - cost;   /* borrowed, so not held against it */
}

static void fill(struct dice *d, struct pair *p)
{
	int64_t tokens = dice_between(d, -1, p->burst + 1);
	int64_t clamped = tokens < 0 ? 0 : tokens > p->burst ? p->burst : tokens;
	neap_gcra_fill(p->g, tokens, p->now);
	bucket_fill(&p->same, clamped, p->now);
	bucket_fill(&p->ideal, clamped, p->now);
	p->since = p->latest = p->now;
	p->admitted = 0;
	p->most = clamped;
}

static void balance(struct pair *p)
{
	int64_t free = neap_gcra_available(p->g, p->now), want = bucket_tokens(&p->same, p->now);
	if (free != want)
		wrong(p, 0, "available", free, want);
}

static void same_as_a_bucket(struct dice *d)
{
	int64_t ops = trial_ops(10000000);
	struct pair p;
	while (ops > 0) {
		any_limiter(d, &p);
		expect_fine_units(&p);
		for (int64_t n = dice_any_size(d, 32, 16384); n; n--, ops--) {
			int64_t cost = any_cost(d, &p);
			move_clock(d, &p);
			switch (dice_between(d, 0, 15)) {
			case 0: settle(d, &p, cost); break;
			case 1: dice_between(d, 0, 31) ? balance(&p) : fill(d, &p); break;
			case 2: case 3: balance(&p); break;
			case 4: case 5: case 6: claim(d, &p, cost); break;
			default: take(&p, cost);
			}
		}
	}
}

/* Waiters one behind the other for ten years: each goes when its last token came, rounded up. */
static void no_drift_in_ten_years(struct dice *d)
{
	const struct { int64_t amount; neap_ns period_ns; } fixed[] = {
		{1, 30 * DAY}, {700000, SECOND}, {5000000000, SECOND}, {999999937, 1000000007},
		{1000000007, 999999937}, {3, 1000000007}, {1, 1}, {6, 1}, {2147483647, 4294967291},
	};
	int64_t ops = trial_ops(1000000), fixed_count = sizeof fixed / sizeof *fixed;
	for (int64_t round = 0; ops > 0; round++) {
		struct pair p;
		any_limiter(d, &p);
		if (round < fixed_count) {
			p.amount = fixed[round].amount, p.period_ns = fixed[round].period_ns;
		}
		/* so large that 10,000 waiters in turn fill ten years */
		ticks step = (ticks)p.amount * 10 * YEAR / p.period_ns / 10000 + 1;
		p.burst = dice_any_size(d, (int64_t)step, MOST - 1);
		neap_gcra_init(p.g, p.amount, p.period_ns, p.burst);
		const struct neap_term term = {&p.limiter, 1, 0, 0};
		const struct neap_all all = {&term, 1, 0, NULL};
		neap_gcra_fill(p.g, 0, 0);
		ticks waited_for = 0;
		neap_ns now = 0;
		for (int i = 0; now < 10 * YEAR && ops > 0; i++, ops--) {
			int64_t cost = dice_between(d, 1, (int64_t)step);
			waited_for += cost;
			ticks exact = (waited_for * p.period_ns + p.amount - 1) / p.amount;
			neap_ns at = neap_all_when(&all, &cost, now, NULL);
			if (at != exact)
				trial_fail("waiter %d at %ld, not %ld (%ld per %ld burst %ld)", i, at,
					   (neap_ns)exact, p.amount, p.period_ns, p.burst);
			if (neap_all_claim(&all, &cost, at, NULL) != at)
				trial_fail("waiter %d refused at %ld", i, at);
			now = at;
		}
	}
}

/* "After 'ahead' more tokens": granted one by one to a copy, each at its exact instant. */
static void after_those_ahead(struct dice *d)
{
	int64_t ops = trial_ops(200000);
	while (ops > 0) {
		struct pair p;
		any_limiter(d, &p);
		for (int i = 0; i < 20; i++, ops--) {
			move_clock(d, &p);
			take(&p, any_cost(d, &p));
			int64_t ahead = dice_between(d, 0, 40), cost = any_cost(d, &p);
			struct neap_limiter copy = p.limiter;
			const struct neap_term term = {&copy, 1, 0, 0};
			const struct neap_all all = {&term, 1, 0, NULL};
			neap_ns got = neap_limiter_after(&p.limiter, ahead, cost, p.now), now = p.now;
			for (int64_t n = 0, one = 1; n < ahead && now < neap_horizon; n++) {
				neap_ns at = neap_all_when(&all, &one, now, NULL);
				if (at < neap_horizon)
					(at > p.now ? neap_all_claim : neap_all_take)(&all, &one, at, NULL);
				now = at;
			}
			neap_ns want = now < neap_horizon ? neap_gcra_when(&copy.as.gcra, cost, now) : now;
			if (cost > p.burst)
				want = neap_never;
			else if (cost == 0)
				want = neap_gcra_when(p.g, 0, p.now);
			if (got != want)
				wrong(&p, cost, "when those ahead are through", got, want);
		}
	}
}

/* As full as it was, or what it owes in proportion, and less than a unit below that. */
static int same_ratio(ticks got, ticks room, ticks level, ticks full)
{
	return got * full <= level * room && (got + 1) * full > level * room;
}

/* Another rate in place: what is left, in the new units, rounded down by less than one of them. */
static void change(struct dice *d, struct pair *p)
{
	struct pair fresh;
	any_limiter(d, &fresh);
	int keep = (int)dice_between(d, NEAP_KEEP_SPENT, NEAP_KEEP_NOTHING), finer = p->g->shift;
	ticks level = bucket_level(&p->same, p->now), full = p->same.full, was = level;
	ticks owed = level < 0 ? -level : 0, held = level < 0 ? 0 : level, spent = full - held;
	ticks room = fresh.same.full << finer;   /* from here on in old units of new units */
	owed <<= fresh.g->shift, held <<= fresh.g->shift, spent <<= fresh.g->shift;
	spent = keep == NEAP_KEEP_HELD ? room - held : spent;
	ticks want = room - (spent < 0 ? 0 : spent > room ? room : spent) - owed;
	if (keep == NEAP_KEEP_NOTHING)
		want = room;
	if (neap_gcra_change(p->g, fresh.amount, fresh.period_ns, fresh.burst, keep, p->now))
		trial_fail("%ld per %ld burst %ld: refused", fresh.amount, fresh.period_ns, fresh.burst);
	bucket_fill(&fresh.same, 0, p->now);
	ticks debt = p->g->tat > fresh.same.since ? p->g->tat - fresh.same.since : 0;
	ticks unit = (ticks)1 << finer, left = p->g->burst - debt, got = left * unit;
	if (p->g->tat == INT64_MAX && (keep == NEAP_KEEP_RATIO || got > want))
		return;   /* a debt beyond the end of the number line */
	int right = keep == NEAP_KEEP_RATIO ? same_ratio(left, fresh.same.full, was, full)
					    : got <= want && want - got < unit;
	if (p->g->shift != fresh.g->shift || !right)
		wrong(&fresh, keep, "after a change", (int64_t)(got >> finer), (int64_t)(want >> finer));
}

static void changed_in_place(struct dice *d)
{
	for (int64_t ops = trial_ops(300000); ops > 0; ops -= 10) {
		struct pair p;
		any_limiter(d, &p);
		for (int i = 0; i < 9; i++) {
			int64_t cost = any_cost(d, &p);
			move_clock(d, &p);
			dice_between(d, 0, 1) ? take(&p, cost) : settle(d, &p, cost);
		}
		/* a clock that stepped back shows a debt that nobody owes */
		p.now = p.latest;
		change(d, &p);
	}
}

static void bounds_are_refused(struct dice *d)
{
	(void)d;
	static const struct { int64_t amount; neap_ns period_ns; int64_t burst; int answer; } rows[] = {
		{0, 1, 1, NEAP_ERANGE}, {1, 0, 1, NEAP_ERANGE}, {1, 1, 0, NEAP_ERANGE},
		{-1, 1, 1, NEAP_ERANGE}, {1, -1, 1, NEAP_ERANGE}, {1, 1, -1, NEAP_ERANGE},
		{INT64_MIN, 1, 1, NEAP_ERANGE}, {1, INT64_MIN, 1, NEAP_ERANGE},
		{7, 1, 1, NEAP_ERANGE}, {6, 1, 1, NEAP_OK}, {13, 2, 1, NEAP_ERANGE}, {12, 2, 1, NEAP_OK},
		{(INT64_C(1) << 59) - 1, INT64_C(1) << 60, (INT64_C(1) << 59) - 1, NEAP_OK},
		{INT64_C(1) << 59, INT64_C(1) << 60, 1, NEAP_ERANGE},
		{1, 1, INT64_C(1) << 59, NEAP_ERANGE}, {1, INT64_MAX, 1, NEAP_ERANGE},
		{INT64_MAX, 1, 1, NEAP_ERANGE}, {1, 1, INT64_MAX, NEAP_ERANGE},
		{1, INT64_C(1) << 60, 1, NEAP_OK}, {1, INT64_C(1) << 60, (INT64_C(1) << 59) - 1, NEAP_OK},
	};
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct neap_gcra g, was;
		memset(&g, 0x5A, sizeof g);
		was = g;
		int answer = neap_gcra_init(&g, rows[i].amount, rows[i].period_ns, rows[i].burst);
		if (answer != rows[i].answer || (answer && memcmp(&g, &was, sizeof g)))
			trial_fail("row %u: %d", i, answer);
	}
}

/* Debt up to the end of the number line: nothing wraps, nothing is granted before the horizon. */
static void borrowing_never_wraps(struct dice *d)
{
	for (int64_t i = trial_ops(100000); i > 0; i--) {
		struct pair p;
		any_limiter(d, &p);
		for (int64_t n = dice_between(d, 1, 40); n; n--)
			neap_gcra_settle(p.g, 0, dice_any_size(d, 1, MOST), p.now);
		ticks debt = p.g->tat;
		int64_t free = neap_gcra_available(p.g, p.now);
		neap_ns at = neap_gcra_when(p.g, p.burst, p.now);
		if (p.g->tat < 0 || free > p.burst || at < p.now || at > neap_horizon)
			trial_fail("tat %ld, available %ld, at %ld", p.g->tat, free, at);
		if (debt < INT64_MAX)
			continue;
		if (neap_gcra_when(p.g, 0, p.now) <= p.now || free >= 0)
			trial_fail("at the end of the line: available %ld", free);
		neap_gcra_fill(p.g, p.burst, p.now);
		if (neap_gcra_take(p.g, p.burst, p.now) != p.now)
			trial_fail("filled, but not full");
	}
}

int main(void)
{
	trial_run("gcra refuses what does not fit and touches nothing", bounds_are_refused);
	trial_run("gcra decides, waits and counts as an exact token bucket does", same_as_a_bucket);
	trial_run("waiters on a gcra do not drift in ten years", no_drift_in_ten_years);
	trial_run("gcra knows when those ahead will be through", after_those_ahead);
	trial_run("gcra with another rate keeps what it is told to", changed_in_place);
	trial_run("gcra borrows up to the end of time without wrapping", borrowing_never_wraps);
	return trial_verdict();
}
