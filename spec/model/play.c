/* SPDX-License-Identifier: MIT */
#include "play.h"

#include <string.h>

const neap_ns NOW = 1000000;

struct play play = {.take = neap_all_take};

static struct neap_term *term_of(struct script *s, int word)
{
	for (int i = 0; i < s->all.count; i++)
		if (s->term[i].limiter == &play.limiter[word])
			return &s->term[i];
	return NULL;
}

int64_t play_asks(struct script *s, const struct attempt *a, int word)
{
	const struct neap_term *t = term_of(s, word);
	return t ? a->cost[t->cost] : 0;
}

void play_begin(void)
{
	memcpy(play.limiter, play.fresh, sizeof play.limiter);
	memset(play.held, 0, sizeof play.held);
	play.over = 0;
}

static void hold(struct script *s, const struct attempt *a, int sign)
{
	for (int w = 0; w < WORDS; w++) {
		play.held[w] += sign * play_asks(s, a, w);
		if (play.limiter[w].kind == NEAP_SEMAPHORE &&
		    play.held[w] > play.limiter[w].as.semaphore.limit)
			play.over = 1;
	}
}

int play_attempt(const struct script *s, const struct attempt *a, taker *take)
{
	struct neap_limiter *first = &play.limiter[0], *last = &play.limiter[WORDS - 1];
	if (a->pauses && last->kind == NEAP_PAUSE)
		neap_pause_extend(&last->as.pause, a->pauses);
	else if (a->fills && first->kind == NEAP_GCRA)
		neap_gcra_fill(&first->as.gcra, a->fills - 1, a->now);
	if (a->pauses || a->fills)
		return 0;
	int64_t cost[NEAP_COSTS] = {0};
	memcpy(cost, a->cost, sizeof a->cost);
	if (a->alone)
		return neap_limiter_take(s->term->limiter, cost[s->term->cost], a->now) <= a->now;
	return take(&s->all, cost, a->now, NULL) <= a->now;
}

static void perform(int thread)
{
	struct script *s = &play.script[thread];
	for (struct attempt *a = s->attempt; a < s->attempt + s->attempts; a++) {
		int64_t cost[NEAP_COSTS] = {0};
		memcpy(cost, a->cost, sizeof a->cost);
		a->granted = 0;
		a->granted = play_attempt(s, a, play.take);
		if (!a->granted)
			continue;
		hold(s, a, 1);
		if (a->gives || a->settles)
			hold(s, a, -1);
		if (a->gives)
			neap_all_give(&s->all, cost, NEAP_SUCCESS, a->now, a->now);
		if (a->settles)
			neap_all_settle(&s->all, cost, (int64_t[NEAP_COSTS]){0}, a->now, a->now);
	}
}

int64_t play_every_order(int switches, int64_t orders, void (*end)(void))
{
	return steps_every_order(&(struct steps_play){
		.threads = play.threads, .switches = switches, .deaths = play.deaths,
		.fault = play.fault, .orders = orders, .begin = play_begin, .body = perform, .end = end});
}

void play_any_script(struct dice *d, struct script *s)
{
	int order[WORDS];
	for (int i = 0; i < WORDS; i++) {
		int j = (int)dice_between(d, 0, i);
		order[i] = order[j];
		order[j] = i;
	}
	int count = (int)dice_between(d, 2, WORDS);
	for (int i = 0; i < count; i++)
		s->term[i] = (struct neap_term){&play.limiter[order[i]], 1, i, 0};
	s->all = (struct neap_all){s->term, count, 0, NULL};
	s->attempts = (int)dice_between(d, 1, ATTEMPTS);
	for (struct attempt *a = s->attempt; a < s->attempt + s->attempts; a++) {
		*a = (struct attempt){.now = NOW, .gives = dice_between(d, 0, 2) == 0};
		a->settles = !a->gives && dice_between(d, 0, 3) == 0;
		for (int i = 0; i < WORDS; i++)
			a->cost[i] = dice_between(d, 0, 4) ? 1 : 2;
	}
}

int64_t *play_word(struct neap_limiter *l)
{
	switch (l->kind) {
	case NEAP_GCRA: return &l->as.gcra.tat;
	case NEAP_SEMAPHORE: return &l->as.semaphore.in_use;
	}
	return &l->as.pause.ends;
}
