/* SPDX-License-Identifier: MIT */
/* held.c - keys that are held, beside the table.
 *
 * A key is one word, and one that is held is more: its hold has an end, and until then its clock
 * stands. So for that time the word lives here, in a record, and a face (keyed.c) has it from here.
 *
 *      table: word ──hold──> record: word, stands, until ──the end, and it is wanted──> table: word
 *                                                        ──the end, and time refills it──> nothing
 *
 * Who owes something when its hold ends, and finds no place in the table, stays. So no debt is lost,
 * and a hold needs no room among those who are alive. Those of whom nobody speaks again would pile
 * up: each hold looks at some records of others, more than it adds.
 */
#include "held.h"

#include "change.h"

enum { LOOKS = 8 };

static struct neap_held *record(const struct neap_helds *s, uint32_t name)
{
	return (struct neap_held *)(void *)(s->record.record + name * s->record.size);
}

void neap_helds_init(struct neap_helds *s)
{
	neap_roster_init(&s->record, sizeof(struct neap_held));
	s->looked_at = 0;
}

void neap_helds_free(struct neap_helds *s) { neap_roster_free(&s->record); }

struct neap_held *neap_helds_find(const struct neap_helds *s, const void *of, uint64_t key)
{
	uint32_t name = neap_roster_find(&s->record, of, key);
	return name ? record(s, name) : NULL;
}

struct neap_held *neap_helds_add(struct neap_helds *s, const void *of, uint64_t key)
{
	if (neap_roster_reserve(&s->record, s->record.count + 1))
		return NULL;
	return record(s, neap_roster_add(&s->record, of, key));
}

void neap_helds_remove(struct neap_helds *s, struct neap_held *h)
{
	neap_roster_remove(&s->record, (uint32_t)(h - record(s, 0)));
}

void neap_held_wear(const struct neap_held *h, struct neap_gcra *g)
{
	g->tat = h->word;
	g->held = h->until;
	g->stands = h->stands;
}

void neap_held_note(struct neap_held *h, const struct neap_gcra *g, neap_ns now)
{
	h->word = g->tat;
	h->until = g->held;
	h->stands = g->stands;
	h->since = now;
}

int neap_held_is_over(const struct neap_held *h, const struct neap_gcra *like, neap_ns now)
{
	return !neap_held_is_on(h, now) && h->word <= neap_gcra_clock(like, now - 1);
}

void neap_helds_release(struct neap_helds *s, const struct neap_gcra *like, neap_ns now)
{
	for (uint32_t n = 0; n < LOOKS && n < s->record.used; n++) {
		s->looked_at = s->looked_at < s->record.used ? s->looked_at + 1 : 1;
		struct neap_held *h = record(s, s->looked_at);
		if (h->key.of && neap_held_is_over(h, like, now))
			neap_helds_remove(s, h);
	}
}

void neap_helds_carry(struct neap_helds *s, const struct neap_gcra *was,
		      const struct neap_gcra *like, int keep, neap_ns now)
{
	for (uint32_t name = 1; name <= s->record.used; name++) {
		struct neap_held *h = record(s, name);
		struct neap_gcra g = *was;
		if (!h->key.of)
			continue;
		neap_held_wear(h, &g);
		h->word = neap_gcra_carry(&g, like, keep, now);
		h->stands = neap_gcra_clock(like, now);
	}
}

int64_t neap_helds_count(const struct neap_helds *s, const struct neap_gcra *like, neap_ns now)
{
	int64_t count = 0, clock = neap_gcra_clock(like, now);
	for (uint32_t name = 1; name <= s->record.used; name++) {
		const struct neap_held *h = record(s, name);
		count += h->key.of && (now < h->until || h->word > clock);
	}
	return count;
}
