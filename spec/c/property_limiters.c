/* SPDX-License-Identifier: MIT */
/* property_limiters.c - semaphore, window and pause against models a child could check. */
#include "diary.h"
#include "trial.h"

#include <stdlib.h>
#include <string.h>

static const int64_t MOST = INT64_C(1) << 59;   /* the largest cost and limit */

/* ---- semaphore: a pile of permits, and those that are out ---- */

static neap_ns pile_when(int64_t limit, int64_t out, int overdraw, int64_t cost, neap_ns now)
{
	if (overdraw)
		return out <= limit ? now : neap_on_give;
	if (cost > limit)
		return neap_never;
	return cost == 0 || cost <= limit - out ? now : neap_on_give;
}

static void semaphore_episode(struct dice *d, int64_t ops)
{
	int64_t limit = dice_any_size(d, 1, dice_between(d, 0, 3) ? 100 : MOST), out = 0;
	int overdraw = (int)dice_between(d, 0, 1);
	struct neap_limiter l = {.kind = NEAP_SEMAPHORE};
	struct neap_semaphore *s = &l.as.semaphore;
	if (neap_semaphore_init(s, limit, overdraw))
		trial_fail("limit %ld refused", limit);
	for (neap_ns now = 0; ops; ops--, now += dice_between(d, 0, 5)) {
		int64_t cost = dice_between(d, 0, 4) ? dice_between(d, 0, limit < 9 ? limit : 9)
						     : dice_any_size(d, 1, MOST);
		int64_t part = out ? dice_between(d, 0, out) : 0;
		neap_ns want = pile_when(limit, out, overdraw, cost, now);
		switch (dice_between(d, 0, 6)) {
		case 0: case 1:
			neap_limiter_give(&l, part, (int)dice_between(d, 0, 2), now, now);
			out -= part;
			break;
		case 2:   /* a call that turned out lighter, or heavier */
			cost = dice_between(d, 0, 100);
			neap_limiter_settle(&l, part, cost, 0, now);
			out += cost - part;
			break;
		case 3:
			limit = s->limit = dice_any_size(d, 1, limit < MOST / 2 ? 2 * limit : MOST);
			break;
		default:
			if (neap_semaphore_when(s, cost, now) != want || s->in_use != out)
				trial_fail("when %ld, not %ld: cost %ld of %ld, %ld out, overdraw %d",
					   neap_semaphore_when(s, cost, now), want, cost, limit, out,
					   overdraw);
			if (neap_semaphore_take(s, cost, now) != want)
				trial_fail("take and when disagree");
			out += want <= now ? cost : 0;
		}
		if (s->in_use != out || neap_limiter_available(&l, now) != limit - out)
			trial_fail("%ld in use, not %ld", s->in_use, out);
		if (out > INT64_C(1) << 59)
			return;
	}
}

static void semaphore_counts(struct dice *d)
{
	for (int64_t ops = trial_ops(2000000); ops > 0; ops -= 500)
		semaphore_episode(d, 500);
}

/* ---- window ---- */

/* Another limit, window and log in place, all of which the diary takes as they come. Answers the log
 * it has from now on, on the heap and no larger, so that a sanitizer sees a step beyond it. */
static struct neap_stamp *window_changes(struct dice *d, struct neap_window *w, struct diary *diary,
					 neap_ns now)
{
	struct neap_window was = *w;
	int64_t limit = dice_any_size(d, 1, 20);
	neap_ns window_ns = dice_any_size(d, 1, 1000);
	uint32_t size = dice_between(d, 0, 2) ? (uint32_t)dice_any_size(d, 1, 24) : w->size;
	struct neap_stamp *log = w->log, *other = malloc(size * sizeof *other);
	if (size != w->size || !dice_between(d, 0, 1))
		log = other;
	int gone = diary->gone;
	neap_ns sealed = diary->sealed;
	diary_forget(diary, now);
	int fits = (uint32_t)(diary->count - diary->gone) <= size;
	int answer = neap_window_change(w, limit, window_ns, log, size, now);
	if (answer != (fits ? NEAP_OK : NEAP_ERANGE) || (answer && memcmp(&was, w, sizeof was)))
		trial_fail("%d, with %d to move into %u", answer, diary->count - diary->gone, size);
	if (answer) {
		diary->gone = gone;
		diary->sealed = sealed;
	} else {
		diary->limit = limit;
		diary->window_ns = window_ns;
		diary->size = size;
	}
	free(w->log == other ? was.log : other);
	return w->log;
}

static void window_episode(struct dice *d, int64_t ops)
{
	struct diary diary;
	struct neap_limiter l = {.kind = NEAP_WINDOW};
	struct neap_window *w = &l.as.window;
	int64_t limit = dice_any_size(d, 1, dice_between(d, 0, 5) ? 20 : MOST);
	neap_ns window_ns = dice_any_size(d, 1, dice_between(d, 0, 5) ? 1000 : neap_horizon);
	uint32_t size = (uint32_t)dice_any_size(d, 1, 24);
	/* on the heap and no larger, so that a sanitizer sees a step beyond it */
	struct neap_stamp *log = malloc(size * sizeof *log);
	neap_ns now = dice_between(d, 0, 2000), hint = now;
	int raised = 0, changed = 0;
	if (!log || neap_window_init(w, limit, window_ns, log, size))
		trial_fail("limit %ld, window %ld, size %u refused", limit, window_ns, size);
	diary_init(&diary, limit, window_ns, size);
	while (ops-- && diary.count < DIARY_PAGES - 1) {
		switch (dice_between(d, 0, 7)) {
		case 0: case 1: now += dice_any_size(d, 1, window_ns); break;
		case 2: now += dice_between(d, 0, 3); break;
		case 3: now = hint; break;
		case 4: now = hint - 1; break;
		case 5: now -= dice_between(d, 0, 9) ? 0 : dice_any_size(d, 1, window_ns); break;
		}
		now = now < 0 ? 0 : now >= neap_horizon / 2 ? neap_horizon / 2 : now;
		if (!dice_between(d, 0, 63)) {
			log = window_changes(d, w, &diary, now);
			limit = w->limit, window_ns = w->window_ns, size = w->size;
			changed = 1;
			continue;
		}
		if (!dice_between(d, 0, 63)) {   /* it is made new, and what was granted is settled */
			neap_window_init(w, limit, window_ns, log, size);
			diary_begin_anew(&diary);
			changed = 1;
		}
		int64_t cost = dice_between(d, 0, 9) ? dice_between(d, 0, limit < 8 ? limit : 8)
						     : dice_any_size(d, 1, limit < MOST ? limit + 1 : MOST);
		if (diary.count && !dice_between(d, 0, 15)) {
			int i = (int)dice_between(d, 0, diary.count - 1);
			int64_t used = dice_between(d, 0, 9);
			neap_ns at = diary.entry[i].at;
			if (at > 0 && !dice_between(d, 0, 3))   /* of one that joined it */
				at -= dice_between(d, 1, 2);
			at = at > 0 ? at : 0;
			cost = dice_between(d, 0, diary.entry[i].cost + 1);   /* 1 too many is the next one's */
			raised |= used > cost;
			neap_limiter_settle(&l, cost, used, at, now);
			if (!cost)
				diary_forget(&diary, now);
			if (cost || at > now - window_ns)
				diary_settle(&diary, cost, used, at);
			continue;
		}
		if (neap_window_available(w, now) != diary_available(&diary, now))
			trial_fail("available %ld, not %ld, at %ld", neap_window_available(w, now),
				   diary_available(&diary, now), now);
		struct neap_window was = *w;
		neap_ns want = diary_when(&diary, cost, now), got = neap_window_when(w, cost, now);
		if (got != want)
			trial_fail("when %ld, not %ld: cost %ld of %ld at %ld, log of %u", got, want,
				   cost, limit, now, size);
		if (neap_window_take(w, cost, now) != want)
			trial_fail("take and when disagree");
		if (want > now) {
			if (memcmp(&was, w, sizeof was))
				trial_fail("a refused take changed the window");
			hint = want < neap_on_give ? want : now;
			if (want < neap_horizon && neap_window_when(w, cost, want - 1) != want)
				trial_fail("%ld is not tight", want);
		} else if (cost) {
			diary_take(&diary, cost, now);
		}
	}
	if (!raised && !changed && diary_fullest_span(&diary) > limit)
		trial_fail("%ld tokens in one window of %ld", diary_fullest_span(&diary), limit);
	free(log);
}

static void window_remembers(struct dice *d)
{
	for (int64_t ops = trial_ops(1000000); ops > 0; ops -= 400)
		window_episode(d, 400);
}

/* ---- pause ---- */

static void pause_only_grows(struct dice *d)
{
	struct neap_limiter l = {.kind = NEAP_PAUSE};
	neap_pause_init(&l.as.pause);
	neap_ns ends = 0, now = 0;
	for (int64_t ops = trial_ops(500000); ops; ops--) {
		neap_ns until = dice_any_size(d, 1, neap_horizon) - 1;
		now += dice_between(d, 0, 9) ? dice_between(d, -3, 3) : dice_any_size(d, 1, 1 << 30);
		now = now < 0 || now > neap_horizon / 2 ? 0 : now;
		if (!dice_between(d, 0, 3)) {
			ends = until > ends ? until : ends;
			if (neap_pause_extend(&l.as.pause, until) != ends)
				trial_fail("extending to %ld answers otherwise than %ld", until, ends);
		} else if (!dice_between(d, 0, 9)) {
			neap_pause_clear(&l.as.pause);
			ends = 0;
		}
		neap_ns want = ends > now ? ends : now;
		int64_t cost = dice_any_size(d, 1, MOST);
		if (neap_limiter_when(&l, cost, now) != want || neap_limiter_take(&l, cost, now) != want)
			trial_fail("at %ld, paused until %ld, not %ld", now, ends, want);
		if (neap_limiter_available(&l, now) != (ends > now ? 0 : INT64_MAX))
			trial_fail("available %ld at %ld", neap_limiter_available(&l, now), now);
	}
}

static void bounds_are_refused(struct dice *d)
{
	(void)d;
	struct neap_semaphore s, s_was;
	struct neap_window w, w_was;
	struct neap_stamp log[1];
	memset(&s, 0x5A, sizeof s), memset(&w, 0x5A, sizeof w);
	s_was = s, w_was = w;
	const int64_t bad[] = {0, -1, INT64_MIN, MOST + 1, INT64_MAX};
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
		if (neap_semaphore_init(&s, bad[i], 0) != NEAP_ERANGE ||
		    neap_window_init(&w, bad[i], 1, log, 1) != NEAP_ERANGE)
			trial_fail("limit %ld", bad[i]);
	if (neap_semaphore_init(&s, 1, 2) != NEAP_ERANGE || neap_semaphore_init(&s, 1, -1) != NEAP_ERANGE)
		trial_fail("overdraw is 0 or 1");
	if (neap_window_init(&w, 1, 0, log, 1) != NEAP_ERANGE ||
	    neap_window_init(&w, 1, neap_horizon + 1, log, 1) != NEAP_ERANGE ||
	    neap_window_init(&w, 1, 1, NULL, 1) != NEAP_ERANGE ||
	    neap_window_init(&w, 1, 1, log, 0) != NEAP_ERANGE)
		trial_fail("a window of no length, or without a log");
	if (memcmp(&s, &s_was, sizeof s) || memcmp(&w, &w_was, sizeof w))
		trial_fail("a refused _init wrote something");
	if (neap_semaphore_init(&s, MOST, 1) || neap_window_init(&w, MOST, neap_horizon, log, 1))
		trial_fail("the largest is refused");
}

/* A charge past the end of the number line is not counted, and never forgiven by giving back. */
static void what_is_past_the_end_stays(struct dice *d)
{
	for (int64_t i = trial_ops(10000); i > 0; i--) {
		const int64_t huge = INT64_C(1) << 59;
		int64_t amount = dice_any_size(d, 1, 1000), limit = dice_any_size(d, 1, huge - 1);
		struct neap_limiter l[2];
		memset(l, 0, sizeof l);
		l[0].kind = NEAP_GCRA;
		neap_gcra_init(&l[0].as.gcra, amount, dice_any_size(d, 1000, 1000000), limit);
		l[1].kind = NEAP_SEMAPHORE;
		neap_semaphore_init(&l[1].as.semaphore, limit, (int)dice_between(d, 0, 1));
		for (int k = 0; k < 2; k++) {
			neap_ns now = dice_any_size(d, 1, neap_horizon / 2);
			neap_limiter_settle(&l[k], 0, INT64_MAX, now, now);
			neap_limiter_settle(&l[k], 0, huge, now, now);
			neap_limiter_settle(&l[k], INT64_MAX, 0, now, now);
			neap_limiter_give(&l[k], huge, NEAP_SUCCESS, now, now);
			if (neap_limiter_take(&l[k], 1, neap_horizon - 1) < neap_horizon)
				trial_fail("kind %d: a debt of 2^63 tokens and more is forgotten", l[k].kind);
		}
		neap_gcra_fill(&l[0].as.gcra, limit, 5);
		if (neap_limiter_take(&l[0], limit, 5) != 5)
			trial_fail("filled, and yet nobody goes");
	}
}

/* Held by one who is no more: readers see what it is, and who waits for it gets it. */
static void a_word_of_the_dead(struct dice *d)
{
	(void)d;
	struct neap_limiter l[3];
	struct neap_term term[3];
	struct neap_all all;
	const int64_t cost[NEAP_COSTS] = {2};
	memset(l, 0, sizeof l);
	for (int i = 0; i < 3; i++) {
		term[i] = (struct neap_term){&l[i], 1, 0, 0};
		l[i].kind = i == 1 ? NEAP_SEMAPHORE : NEAP_GCRA;
		if (i == 1)
			neap_semaphore_init(&l[i].as.semaphore, 5, 0);
		else
			neap_gcra_init(&l[i].as.gcra, 1, 1000, 5);
		neap_limiter_share(&l[i]);
		neap_limiter_take(&l[i], 1, 0);
		l[i].as.word |= INT64_MIN;
		if (neap_limiter_available(&l[i], 0) != 4 || neap_limiter_when(&l[i], 4, 0) != 0 ||
		    neap_limiter_when(&l[i], 5, 0) <= 0 || neap_limiter_is_new(&l[i], 0))
			trial_fail("kind %d reads otherwise when it is held", l[i].kind);
	}
	neap_all_init(&all, term, 3);
	if (neap_all_take(&all, cost, 0, NULL) != 0)
		trial_fail("the dead are in the way");
	for (int i = 0; i < 3; i++)
		if (l[i].as.word < 0 || neap_limiter_available(&l[i], 0) != 2)
			trial_fail("kind %d: %ld left", l[i].kind, neap_limiter_available(&l[i], 0));
}

int main(void)
{
	trial_run("a word that is held reads as before, and the dead do not hold it", a_word_of_the_dead);
	trial_run("what is charged past the end of the line is never forgiven",
		  what_is_past_the_end_stays);
	trial_run("semaphore and window refuse what does not fit and touch nothing", bounds_are_refused);
	trial_run("a semaphore counts like a pile of permits", semaphore_counts);
	trial_run("a window answers like a diary of all grants", window_remembers);
	trial_run("a pause only grows, ends by itself and can be cleared", pause_only_grows);
	return trial_verdict();
}
