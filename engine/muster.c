/* SPDX-License-Identifier: MIT */
/* muster.c - all keys of a table that processes share: how many there are, what the dead held, and the
 * proof that the table is whole. Stripe by stripe, so nobody is kept out for more than some us.
 */
#include "change.h"
#include "stripes.h"

/* ---- all of them ---- */

void neap_stripes_stats(const struct neap_slot *s, struct neap_keys_stats *out)
{
	*out = (struct neap_keys_stats){
		.count_max = s->stripes.keys_max,
		.entries = (int64_t)s->stripes.count * s->stripes.places,
		.bytes = s->stripes.count * (int64_t)sizeof(struct neap_stripe),
	};
}

void neap_stripes_forget(const struct neap_slot *s, uint64_t key)
{
	struct neap_stripe *t = neap_stripe_of(s, key);
	neap_stripe_enter(s, t);
	for (uint32_t i = 0; i < s->stripes.places; i++)
		if (t->pair[i].key == key)
			__atomic_store_n(&t->pair[i].word, 0, __ATOMIC_RELAXED);
	neap_stripe_leave(t);
}

/* Is it alive, and no other entry of its key is before it? */
static int counts(const struct neap_slot *s, struct neap_stripe *t, uint32_t n,
		  const struct neap_visit *v)
{
	const struct neap_pair *p = &t->pair[n];
	int alone = s->limiter.kind != NEAP_SEMAPHORE;
	if (is_free(t, p, v))
		return 0;
	for (uint32_t i = 0; i < n && !alone; i++)
		if (t->pair[i].word && t->pair[i].key == p->key)
			return 0;
	return 1;
}

int64_t neap_stripes_count(const struct neap_slot *s, neap_ns idle_ns, neap_ns now)
{
	int64_t count = 0;
	struct neap_visit v;
	neap_visit_begin(&v, s->limiter.kind == NEAP_GCRA ? idle_ns : 0, now);
	v.clock = s->limiter.kind == NEAP_PAUSE ? now : 0;
	for (uint32_t i = 0; i < s->stripes.count; i++) {
		struct neap_stripe *t = stripe_at(s, i);
		neap_stripe_enter(s, t);
		if (s->limiter.kind == NEAP_GCRA)
			v.clock = neap_gcra_clock(neap_stripe_limit(t), now);
		for (uint32_t n = 0; n < s->stripes.places; n++)
			count += counts(s, t, n, &v);
		neap_stripe_leave(t);
	}
	return count;
}

/* ---- permits of processes ---- */

/* How many of a process there are in a stripe; with 'gone' they come back. By who has entered. */
static int64_t permits_in(const struct neap_slot *s, struct neap_stripe *t, int32_t process, int gone)
{
	int64_t sum = 0;
	for (uint32_t n = 0; n < s->stripes.places; n++) {
		struct neap_pair *p = &t->pair[n];
		if (!p->word || holder_of(s, p) != process)
			continue;
		sum += permits_of(p);
		if (gone)
			__atomic_store_n(&p->word, 0, __ATOMIC_RELAXED);
	}
	return sum;
}

static int has_permits(const struct neap_slot *s)
{
	return s->stripes.keys_max && s->limiter.kind == NEAP_SEMAPHORE;
}

int64_t neap_stripes_reap(struct neap_header *h, int32_t process, const struct neap_process *dead)
{
	int64_t back = 0, count = __atomic_load_n(&h->count, __ATOMIC_ACQUIRE);
	for (int32_t i = 0; i < count; i++) {
		const struct neap_slot *s = neap_slot_at(h, i);
		for (uint32_t n = 0; has_permits(s) && n < s->stripes.count; n++) {
			struct neap_stripe *t = stripe_at(s, n);
			neap_stripe_enter(s, t);
			struct neap_process now = neap_guard_process(h, process);
			if (neap_process_is(&now, dead))
				back += permits_in(s, t, process, 1);
			neap_stripe_leave(t);
		}
	}
	return back;
}

int neap_stripes_hold(const struct neap_header *h, int32_t process)
{
	int64_t out = 0, count = __atomic_load_n(&h->count, __ATOMIC_ACQUIRE);
	for (int32_t i = 0; i < count; i++) {
		const struct neap_slot *s = neap_slot_at(h, i);
		for (uint32_t n = 0; has_permits(s) && n < s->stripes.count; n++) {
			neap_stripe_enter(s, stripe_at(s, n));
			out += permits_in(s, stripe_at(s, n), process, 0);
			neap_stripe_leave(stripe_at(s, n));
		}
	}
	return out != 0;
}

/* ---- proof ---- */

static int check_pair(const struct neap_slot *s, struct neap_stripe *t, uint32_t n)
{
	const struct neap_pair *p = &t->pair[n];
	uint32_t home = home_of(s, p->key), line = n / NEAP_STRIPE_WAYS, lines = lines_of(s);
	int bad = p->word < 0 || (p->word && neap_stripe_of(s, p->key) != t);
	bad |= t->seen[n] > t->stamp || (has_permits(s) && p->word && !permits_of(p));
	bad |= p->word && (line + lines - home) % lines > t->reach[home];
	for (uint32_t i = 0; i < n; i++)
		bad |= p->word && t->pair[i].word && t->pair[i].key == p->key &&
		       holder_of(s, &t->pair[i]) == holder_of(s, p);
	return bad;
}

int neap_stripes_check(const struct neap_slot *s)
{
	int bad = 0;
	for (uint32_t i = 0; i < s->stripes.count; i++) {
		struct neap_stripe *t = stripe_at(s, i);
		neap_stripe_enter(s, t);
		bad |= serial_of(t) != s->config.serial || t->lost < 0;
		bad |= (t->progress & PROGRESS) != 0;
		for (uint32_t n = 0; n < s->stripes.places; n++)
			bad |= check_pair(s, t, n);
		for (uint32_t n = s->stripes.places; n < WORDS - 1; n++)
			bad |= t->pair[n].word != 0;
		neap_stripe_leave(t);
	}
	return bad ? NEAP_ECORRUPT : NEAP_OK;
}
