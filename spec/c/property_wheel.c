/* SPDX-License-Identifier: MIT */
/* property_wheel.c - wheel against an agenda, on traffic from nanoseconds to decades.
 *
 * Levels overlap, slots are emptied early, bounds get stale: all that is invisible from outside,
 * where timers come out in the order (due, id), none early, none forgotten. What may be seen is
 * 'next': never late, exact as long as nothing was unset, and never at or before an instant
 * that has been served, or a loop would spin.
 *
 * How long a call takes is seen by counting: this program's wheel.c is compiled so that its
 * prefetches, one for each timer that spreads to a finer level, count (model/spread.h).
 */
#include "agenda.h"
#include "spread.h"
#include "trial.h"

int64_t spread_count;

static const neap_ns SECOND = 1000000000, YEAR = 31536000 * SECOND;

struct pair {
	struct neap_wheel *wheel;
	struct agenda agenda;
	neap_ns now;
	neap_ns spot;    /* where many are due, at the border of a slot of some level */
	int64_t unset;   /* how often a timer was cancelled or set anew since the wheel was empty */
};

static void open_both(struct pair *p, uint32_t capacity, neap_ns now)
{
	p->wheel = neap_wheel_open(capacity, now);
	if (!p->wheel)
		trial_fail("no memory for %u timers", capacity);
	agenda_open(&p->agenda, capacity);
	p->now = p->spot = now;
	p->unset = 0;
}

static void close_both(struct pair *p)
{
	neap_wheel_close(p->wheel);
	agenda_close(&p->agenda);
}

static neap_ns first_due(const struct pair *p)
{
	int64_t id = agenda_first(&p->agenda);
	return id < 0 ? neap_never : p->agenda.due[id];
}

static void set(struct pair *p, uint32_t id, neap_ns due)
{
	p->unset += p->agenda.due[id] != neap_never;
	neap_wheel_set(p->wheel, id, due);
	agenda_set(&p->agenda, id, due);
}

static void cancel(struct pair *p, uint32_t id)
{
	p->unset += p->agenda.due[id] != neap_never;
	neap_wheel_cancel(p->wheel, id);
	agenda_cancel(&p->agenda, id);
}

static int pop(struct pair *p)
{
	neap_ns due = -1, want = first_due(p);
	int64_t id = agenda_first(&p->agenda), got = neap_wheel_pop(p->wheel, p->now, &due);
	if (want > p->now)
		id = -1;
	if (got != id || (id >= 0 && due != want))
		trial_fail("at %ld: timer %ld due %ld, not %ld due %ld", p->now, got, due, id, want);
	if (id >= 0)
		agenda_cancel(&p->agenda, (uint32_t)id);
	if (!p->agenda.count)
		p->unset = 0;
	return id >= 0;
}

static void expect_next(struct pair *p, int served)
{
	neap_ns want = first_due(p), next = neap_wheel_next(p->wheel);
	if (next > want)
		trial_fail("next is late: %ld, not %ld", next, want);
	if (!p->unset && next != want)
		trial_fail("next is not exact: %ld, not %ld", next, want);
	if (served && next <= p->now)
		trial_fail("next is %ld, and all was served up to %ld", next, p->now);
}

static void expect_sound(const struct pair *p)
{
	if (neap_wheel_check(p->wheel) || neap_wheel_count(p->wheel) != p->agenda.count)
		trial_fail("check %d; %u timers, not %u", neap_wheel_check(p->wheel),
			   neap_wheel_count(p->wheel), p->agenda.count);
}

/* Timers set from afar and from near, in different levels, meet in one microsecond. */
static neap_ns near_spot(struct dice *d, struct pair *p)
{
	if (p->spot + 1 < p->now) {
		neap_ns width = INT64_C(1) << dice_between(d, 10, 40);
		p->spot = (p->now / width + dice_between(d, 1, 5000)) * width;
	}
	neap_ns due = p->spot + dice_between(d, -2, 1);
	return due > 0 ? due : 0;
}

static neap_ns any_due(struct dice *d, struct pair *p, neap_ns reach)
{
	static const neap_ns edges[] = {1024, 4096 << 10, 1 << 18, 1 << 26, INT64_C(1) << 34,
					INT64_C(1) << 38, INT64_C(1) << 42, INT64_C(1) << 50};
	switch (dice_between(d, 0, 11)) {
	case 0: return dice_any_size(d, 1, p->now + 1) - 1;                     /* past */
	case 1: return p->now;
	case 2: return p->now + edges[dice_between(d, 0, 7)] + dice_between(d, -2, 2);
	case 3: return (p->now / 1024 + dice_between(d, 0, 3)) * 1024 + dice_between(d, 0, 1);
	case 4: return dice_between(d, 0, 9) ? p->now + 5 : neap_horizon + dice_between(d, -2, 9);
	case 5: case 6: return near_spot(d, p);
	default: return p->now + dice_any_size(d, 1, reach);
	}
}

/* A jump: a little, to what next says, to right before the first, or far. */
static void move_clock(struct dice *d, struct pair *p, neap_ns reach)
{
	neap_ns to = p->now, first = first_due(p);
	switch (dice_between(d, 0, 8)) {
	case 7: to = near_spot(d, p); break;
	case 8: to = p->spot - dice_any_size(d, 1, INT64_C(1) << dice_between(d, 10, 40)); break;
	case 0: to = neap_wheel_next(p->wheel); break;
	case 1: to = first - 1; break;
	case 2: to = first; break;
	case 3: to += dice_between(d, 0, 3000); break;
	case 4: to += dice_any_size(d, 1, reach); break;
	}
	if (to >= p->now && to < neap_horizon)
		p->now = to;
}

static void episode(struct dice *d, uint32_t capacity, int64_t ops, int check_every)
{
	struct pair p;
	neap_ns reach = dice_any_size(d, 1000, 10 * YEAR);
	open_both(&p, capacity, dice_between(d, 0, 1) ? 0 : dice_any_size(d, 1, 20 * YEAR));
	for (int64_t i = 1; i <= ops; i++) {
		uint32_t id = (uint32_t)dice_between(d, 0, capacity - 1);
		int served = 0;
		switch (dice_between(d, 0, 9)) {
		case 0: case 1: case 2: case 3:
			set(&p, id, any_due(d, &p, reach));
			break;
		case 4:
			cancel(&p, id);
			break;
		case 5:
			pop(&p);
			break;
		case 6:   /* a tick may look at its timers and go */
			for (int64_t n = dice_between(d, 0, 3); n && pop(&p); n--)
				;
			break;
		default:
			move_clock(d, &p, reach);
			while (pop(&p))
				;
			served = 1;
		}
		if (dice_between(d, 0, 1))
			expect_next(&p, served);
		if (i % check_every == 0)
			expect_sound(&p);
	}
	p.now = neap_horizon;   /* in the end all come out */
	while (pop(&p))
		;
	expect_sound(&p);
	if (p.agenda.count || neap_wheel_next(p.wheel) != neap_never)
		trial_fail("%u timers stay", p.agenda.count);
	close_both(&p);
}

static void proved_after_every_step(struct dice *d)
{
	for (int64_t ops = trial_ops(20000); ops > 0; ops -= 500)
		episode(d, (uint32_t)dice_any_size(d, 1, 256), 500, 1);
}

static void few_timers(struct dice *d)
{
	for (int64_t ops = trial_ops(1000000); ops > 0; ops -= 4000)
		episode(d, (uint32_t)dice_any_size(d, 1, 64), 4000, 1000);
}

static void many_timers(struct dice *d)
{
	for (int64_t ops = trial_ops(20000); ops > 0; ops -= 5000)
		episode(d, (uint32_t)dice_any_size(d, 1000, 20000), 5000, 100);
}

/* Woken when 'next' says: every round serves something, but for one per timer that was unset. */
static void woken_when_needed(struct dice *d)
{
	for (int64_t ops = trial_ops(400000); ops > 0;) {
		struct pair p;
		uint32_t capacity = (uint32_t)dice_any_size(d, 1, 300);
		neap_ns reach = dice_any_size(d, 1000, 10 * YEAR);
		open_both(&p, capacity, dice_any_size(d, 1, YEAR));
		for (uint32_t id = 0; id < capacity; id++, ops--)
			set(&p, id, p.now + dice_any_size(d, 1, reach));
		int64_t cancelled = 0, vain = 0;
		for (int64_t n = dice_between(d, 0, 1) ? dice_between(d, 0, capacity) : 0; n; n--) {
			cancel(&p, (uint32_t)dice_between(d, 0, capacity - 1));
			cancelled++;
		}
		while (p.agenda.count) {
			p.now = neap_wheel_next(p.wheel);
			int served = 0;
			while (pop(&p))
				served++;
			vain += !served;
			if (vain > cancelled)
				trial_fail("%ld vain rounds for %ld cancelled", vain, cancelled);
		}
		close_both(&p);
	}
}

/* A million on an even road, 1 ms at a time: all out in order, each in its tick, and no call moves
 * more than a small part of them at once. */
static void a_million(struct dice *d)
{
	const int64_t ops = trial_ops(1000000);
	const uint32_t capacity = ops < 1000000 ? (uint32_t)ops : 1000000;
	const neap_ns road = 30 * SECOND, tick = 1000000;
	struct neap_wheel *w = neap_wheel_open(capacity, 0);
	if (!w)
		trial_fail("no memory");
	uint32_t out = 0;
	for (uint32_t id = 0; id < capacity; id++)
		neap_wheel_set(w, id, dice_between(d, 1, road));
	if (neap_wheel_check(w))
		trial_fail("unsound when full");
	for (neap_ns now = 0, before = 0, due, last = 0; now <= road; before = now, now += tick) {
		int64_t most = capacity / 1000 + 300, id;
		do {
			spread_count = 0;
			id = neap_wheel_pop(w, now, &due);
			if (spread_count > most)
				trial_fail("%ld timers moved in one call", spread_count);
			if (id >= 0 && (due > now || due <= before || due < last))
				trial_fail("due %ld after %ld, at %ld", due, last, now);
			last = id >= 0 ? due : last;
			out += id >= 0;
		} while (id >= 0);
	}
	if (out != capacity || neap_wheel_count(w) || neap_wheel_check(w))
		trial_fail("%u of %u came out", out, capacity);
	neap_wheel_close(w);
}

int main(void)
{
	trial_run("a wheel of some timers is sound after every step", proved_after_every_step);
	trial_run("a wheel of few timers is an agenda", few_timers);
	trial_run("a wheel of many timers is an agenda", many_timers);
	trial_run("a wheel asks to be woken when something is due", woken_when_needed);
	trial_run("a wheel of a million timers keeps every tick", a_million);
	return trial_verdict();
}
