/* SPDX-License-Identifier: MIT */
/* diary.c - a sliding log that tries every instant at which something leaves. */
#include "diary.h"

void diary_init(struct diary *d, int64_t limit, neap_ns window_ns, uint32_t size)
{
	d->limit = limit;
	d->window_ns = window_ns;
	d->size = size;
	d->count = d->gone = 0;
	d->sealed = neap_horizon;
}

static int is_in(const struct diary *d, int i, neap_ns now)
{
	return now - d->entry[i].at < d->window_ns;
}

int64_t diary_available(const struct diary *d, neap_ns now)
{
	int64_t free = d->limit;
	for (int i = d->gone; i < d->count; i++)
		if (is_in(d, i, now))
			free -= d->entry[i].cost;
	return free;
}

static int conforms(const struct diary *d, int64_t cost, neap_ns now)
{
	uint32_t entries = 0;
	for (int i = d->gone; i < d->count; i++)
		entries += is_in(d, i, now);
	int joins = d->count > d->gone && d->entry[d->count - 1].at >= now;
	return cost <= diary_available(d, now) && (joins || entries < d->size);
}

neap_ns diary_when(const struct diary *d, int64_t cost, neap_ns now)
{
	if (cost > d->limit)
		return neap_never;
	if (cost == 0 || conforms(d, cost, now))
		return now;
	for (int i = d->gone; i < d->count; i++) {
		neap_ns leaves = d->entry[i].at + d->window_ns;
		if (leaves > now && conforms(d, cost, leaves))
			return leaves < neap_horizon ? leaves : neap_horizon;
	}
	return neap_never;
}

void diary_begin_anew(struct diary *d)
{
	d->gone = d->count;
	d->sealed = neap_horizon;
}

void diary_forget(struct diary *d, neap_ns now)
{
	if (d->sealed == neap_horizon)
		d->sealed = now - 1;
	for (; d->gone < d->count && !is_in(d, d->gone, now); d->gone++)
		if (d->entry[d->gone].at > d->sealed)
			d->sealed = d->entry[d->gone].at;
}

void diary_take(struct diary *d, int64_t cost, neap_ns now)
{
	diary_forget(d, now);
	if (d->count > d->gone && d->entry[d->count - 1].at >= now)
		d->entry[d->count - 1].cost += cost;
	else
		d->entry[d->count++] = (struct neap_stamp){now, cost};
}

static void tear_out(struct diary *d, int i)
{
	for (d->count--; i < d->count; i++)
		d->entry[i] = d->entry[i + 1];
}

/* On the page of its instant, or on the first later one; and what that has not, on the next. */
static void settle_on(struct diary *d, int64_t cost, int64_t used, neap_ns at)
{
	for (int i = d->gone; i < d->count && cost != used;) {
		if (d->entry[i].at < at) {
			i++;
		} else if (used > cost) {
			d->entry[i].cost += used - cost;
			cost = used;
		} else if (d->entry[i].cost > cost - used) {
			d->entry[i].cost -= cost - used;
			cost = used;
		} else {
			cost -= d->entry[i].cost;
			tear_out(d, i);
		}
	}
}

void diary_settle(struct diary *d, int64_t cost, int64_t used, neap_ns at)
{
	for (int i = d->gone; i < d->count; i++)
		if (d->entry[i].at == at && at > d->sealed) {
			settle_on(d, cost, used, at);
			return;
		} else if (d->entry[i].at == at) {
			int64_t left = d->entry[i].cost - cost + used;
			d->entry[i].cost = left > 0 ? left : 0;
			if (left <= 0)
				tear_out(d, i);
			return;
		}
	if (cost && at > d->sealed)
		settle_on(d, cost, used, at);
	if (cost || !used)
		return;
	int i = d->gone;
	while (i < d->count && d->entry[i].at < at)
		i++;
	if ((uint32_t)(d->count - d->gone) == d->size) {
		i = i < d->count ? i : i - 1;
		d->entry[i].at = d->entry[i].at > at ? d->entry[i].at : at;
		d->entry[i].cost += used;
		return;
	}
	for (int j = d->count++; j > i; j--)
		d->entry[j] = d->entry[j - 1];
	d->entry[i] = (struct neap_stamp){at, used};
}

int64_t diary_fullest_span(const struct diary *d)
{
	int64_t fullest = 0;
	for (int i = 0; i < d->count; i++) {
		int64_t sum = 0;
		for (int j = i; j < d->count && d->entry[j].at - d->entry[i].at < d->window_ns; j++)
			sum += d->entry[j].cost;
		fullest = sum > fullest ? sum : fullest;
	}
	return fullest;
}
