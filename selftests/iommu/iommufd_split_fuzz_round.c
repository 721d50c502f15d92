// SPDX-License-Identifier: GPL-2.0-only
/*
 * A round of iommufd_split_fuzz with the model: what the IOASes are like, who
 * attaches to them meanwhile, and what must be pinned in the end.
 */
#include "iommufd_split_fuzz_model.h"

enum {
	MAX_BASE = 2,
	NUM_GUESTS = 2,
	/* Two windows and the free space behind each */
	WORKER_STRIDE = 2 * WINDOW_SLOTS * SLOT,
};

/* What an IOAS has from the start. This decides the alignment */
enum kind {
	KIND_NO_DOMAIN,
	KIND_SUB_PAGE,
	KIND_PINS,
	KIND_SMALL,
	KIND_HUGE,
	NUM_KINDS,
};

static const char *const kind_names[] = { "no domain", "2K", "pins", "small",
					  "huge" };

struct device {
	__u32 stdev_id;
	__u32 idev_id;
	/* 0 while it is parked */
	__u32 hwpt_id;
	unsigned int ioas;
	bool attached;
};

static struct {
	__u32 park_id;
	struct device base[NUM_IOAS][MAX_BASE];
	/* Those that come and go */
	struct device guests[NUM_GUESTS];
	bool stop;
} devices;

static bool ok(struct worker *me, const char *what, int err)
{
	return fuzz_expect(me, what, err, 0);
}

static bool new_device(struct worker *me, struct device *device)
{
	__u32 hwpt_id;

	*device = (struct device){};
	return ok(me, "mock device",
		  fuzz_mock_device(me, model_now.fd, devices.park_id,
				   &device->stdev_id, &device->idev_id,
				   &hwpt_id));
}

static bool setup_ioas(struct worker *me, unsigned int index, enum kind kind)
{
	struct ioas *ioas = &model_now.ioas[index];
	struct iommu_iova_range choice = { .start = CHOICE_START,
					   .last = CHOICE_LAST };
	struct iommu_ioas_allow_iovas allow = {
		.size = sizeof(allow),
		.num_iovas = 1,
		.allowed_iovas = (uintptr_t)&choice,
	};
	unsigned int page = kind == KIND_HUGE ? PAGE : SLOT;
	unsigned int access_flags = 0;
	unsigned int i;

	ioas->dirty_hwpt = 0;
	ioas->num_domains = 0;
	ioas->base_domains = 0;
	if (kind != KIND_NO_DOMAIN)
		ioas->base_domains = 1 + pick(me, MAX_BASE);
	ioas->pins = kind == KIND_PINS ||
		     (kind != KIND_SUB_PAGE && chance(me, 50));
	if (ioas->pins)
		access_flags = MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES;
	if (ioas->pins || kind == KIND_SMALL || kind == KIND_HUGE)
		ioas->map_align = PAGE;
	else
		ioas->map_align = kind == KIND_NO_DOMAIN ? 1 : SLOT;
	ioas->split_align = ioas->map_align == 1 ? PAGE : ioas->map_align;

	if (!ok(me, "IOAS", fuzz_ioas_alloc(me, model_now.fd, &ioas->id)))
		return false;
	allow.ioas_id = ioas->id;
	if (!ok(me, "allowed IOVAs",
		CALL(me, OP_ALLOW_IOVAS, model_now.fd, IOMMU_IOAS_ALLOW_IOVAS,
		     allow)))
		return false;
	if (kind == KIND_SMALL &&
	    !ok(me, "no large pages",
		fuzz_option_huge(me, model_now.fd, ioas->id, false)))
		return false;

	for (i = 0; i != ioas->base_domains; i++) {
		struct device *device = &devices.base[index][i];
		bool dirty = !ioas->dirty_hwpt && chance(me, 70);
		__u32 flags = dirty ? IOMMU_HWPT_ALLOC_DIRTY_TRACKING : 0;

		if (!new_device(me, device) ||
		    !ok(me, "HWPT",
			fuzz_hwpt_alloc(me, model_now.fd, device->idev_id,
					ioas->id, flags,
					kind == KIND_HUGE ?
						MOCK_IOMMUPT_HUGE :
						MOCK_IOMMUPT_DEFAULT,
					&device->hwpt_id)) ||
		    !ok(me, "attach",
			fuzz_replace(me, model_now.fd, device->stdev_id,
				     device->hwpt_id)))
			return false;
		if (dirty) {
			ioas->dirty_hwpt = device->hwpt_id;
			if (!ok(me, "dirty tracking",
				fuzz_dirty_tracking(me, model_now.fd,
						    device->hwpt_id, true)))
				return false;
		}
		ioas->domains[ioas->num_domains++] =
			(struct domain){ device->hwpt_id, page };
		if (model_now.num_wrong_ids < ARRAY_SIZE(model_now.wrong_ids))
			model_now.wrong_ids[model_now.num_wrong_ids++] =
				pick(me, 2) ? device->hwpt_id : device->idev_id;
	}

	for (i = 0; i != num_workers; i++) {
		struct model *model = workers[i].state;
		struct window *window = &model->windows[index];

		memset(window, 0, sizeof(*window));
		window->ioas = ioas;
		window->iova = MOCK_APERTURE_START + i * WORKER_STRIDE;
		if (!ok(me, "access",
			fuzz_access_create(me, model_now.fd, ioas->id,
					   access_flags, &window->access)))
			return false;
	}
	return true;
}

/* A domain comes. From when it is in the list everybody checks it */
static void guest_comes(struct worker *me, struct device *guest)
{
	struct ioas *ioas;
	__u32 flags = 0;

	guest->ioas = pick(me, NUM_IOAS);
	ioas = &model_now.ioas[guest->ioas];
	/* The first domain would change the alignment */
	if (!ioas->base_domains)
		return;
	if (chance(me, 50))
		flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
	if (!ok(me, "HWPT while others map",
		fuzz_hwpt_alloc(me, model_now.fd, guest->idev_id, ioas->id,
				flags, MOCK_IOMMUPT_DEFAULT, &guest->hwpt_id)))
		return;
	guest->attached = chance(me, 60);
	if (guest->attached &&
	    (!ok(me, "attach while others map",
		 fuzz_replace(me, model_now.fd, guest->stdev_id,
			      guest->hwpt_id)) ||
	     !fuzz_expect(me, "destroy of a HWPT in use",
			  fuzz_destroy(me, model_now.fd, guest->hwpt_id),
			  EBUSY)))
		return;
	pthread_rwlock_wrlock(&ioas->lock);
	ioas->domains[ioas->num_domains++] =
		(struct domain){ guest->hwpt_id, SLOT };
	pthread_rwlock_unlock(&ioas->lock);
}

static void guest_goes(struct worker *me, struct device *guest)
{
	struct ioas *ioas = &model_now.ioas[guest->ioas];
	unsigned int i;

	pthread_rwlock_wrlock(&ioas->lock);
	for (i = 0; ioas->domains[i].hwpt_id != guest->hwpt_id; i++)
		;
	ioas->domains[i] = ioas->domains[--ioas->num_domains];
	pthread_rwlock_unlock(&ioas->lock);
	if (guest->attached)
		ok(me, "detach while others map",
		   fuzz_replace(me, model_now.fd, guest->stdev_id,
				devices.park_id));
	ok(me, "destroy of a HWPT while others map",
	   fuzz_destroy(me, model_now.fd, guest->hwpt_id));
	guest->hwpt_id = 0;
}

static void *guest_worker(void *arg)
{
	struct worker *me = arg;

	while (!__atomic_load_n(&devices.stop, __ATOMIC_RELAXED) && !failed()) {
		struct device *guest = &devices.guests[pick(me, NUM_GUESTS)];

		if (guest->hwpt_id)
			guest_goes(me, guest);
		else
			guest_comes(me, guest);
		usleep(pick(me, 20000));
	}
	return NULL;
}

/* A run of pages of one map call */
struct run {
	uint64_t pages;
	unsigned int first;
	unsigned int last;
};

static int compare_runs(const void *left, const void *right)
{
	const struct run *a = left, *b = right;

	if (a->pages != b->pages)
		return a->pages < b->pages ? -1 : 1;
	return a->first < b->first ? -1 : a->first > b->first;
}

static void add_run(struct run *runs, unsigned int *count, unsigned int worker,
		    const struct area *area, unsigned int start,
		    unsigned int end)
{
	unsigned int offset = area->offset - area->start;

	runs[(*count)++] = (struct run){
		.pages = ((uint64_t)worker << 32) | area->pages,
		.first = (start + offset) * SLOT / PAGE,
		.last = ((end + offset) * SLOT - 1) / PAGE,
	};
}

/*
 * How many pages must be pinned: each page of each map call once, if a domain or
 * an access has it through any area, in whatever pieces.
 */
static long expected_pins(void)
{
	static struct run
		runs[MAX_WORKERS * NUM_IOAS * (MAX_AREAS + 4) * (1 + MAX_PINS)];
	unsigned int count = 0, w, k, i, j;
	long sum = 0;

	for (w = 0; w != num_workers; w++) {
		struct model *model = workers[w].state;

		for (k = 0; k != NUM_IOAS; k++) {
			struct window *window = &model->windows[k];

			for (i = 0; i != window->num_areas; i++) {
				struct area *area = &window->areas[i];
				unsigned int end = area->start + area->length;

				if (window->ioas->num_domains)
					add_run(runs, &count, w, area,
						area->start, end);
				for (j = 0; j != window->num_pins; j++) {
					struct pin pin = window->pins[j];
					unsigned int pin_end =
						pin.start + pin.length;

					if (pin.start >= end ||
					    pin_end <= area->start)
						continue;
					if (pin.start < area->start)
						pin.start = area->start;
					add_run(runs, &count, w, area,
						pin.start, min_u(pin_end, end));
				}
			}
		}
	}
	qsort(runs, count, sizeof(runs[0]), compare_runs);
	for (i = 0; i != count; i = j) {
		unsigned int next = 0;

		for (j = i; j != count && runs[j].pages == runs[i].pages; j++) {
			if (runs[j].first < next)
				runs[j].first = next;
			if (runs[j].last + 1 > runs[j].first)
				sum += runs[j].last + 1 - runs[j].first;
			if (runs[j].last + 1 > next)
				next = runs[j].last + 1;
		}
	}
	return sum;
}

static bool set_limit(struct worker *me, unsigned int limit)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT,
		.memory_limit = { .limit = limit },
	};

	return ok(me, "memory limit",
		  TEST_CALL(me, OP_LIMIT, model_now.fd, cmd));
}

/* Everything one by one, each part as long as the model says */
static void take_down(struct worker *me)
{
	unsigned int w, k, i;

	for (w = 0; w != num_workers; w++) {
		struct model *model = workers[w].state;

		for (k = 0; k != NUM_IOAS; k++) {
			struct window *window = &model->windows[k];

			for (i = 0; i != window->num_areas; i++) {
				struct area *area = &window->areas[i];
				__u64 want = (__u64)area->length * SLOT;
				__u64 length = want;

				ok(me, "unmap in the end",
				   fuzz_unmap(me, model_now.fd,
					      window->ioas->id,
					      window->iova + area->start * SLOT,
					      &length));
				fuzz_expect(me, "length in the end",
					    length != want, 0);
			}
			window->num_areas = 0;
			window->num_pins = 0;
			close(window->access);
			fuzz_count(me, OP_CLOSE, 0);
			window->access = -1;
		}
	}
	fuzz_expect(me, "pins when all is unmapped", pinned_pages(), 0);
	for (k = 0; k != NUM_IOAS; k++) {
		for (i = 0; i != model_now.ioas[k].base_domains; i++) {
			struct device *device = &devices.base[k][i];

			ok(me, "destroy of a device",
			   fuzz_destroy(me, model_now.fd, device->stdev_id));
			ok(me, "destroy of a HWPT",
			   fuzz_destroy(me, model_now.fd, device->hwpt_id));
		}
		ok(me, "destroy of an IOAS",
		   fuzz_destroy(me, model_now.fd, model_now.ioas[k].id));
	}
}

bool model_round(int fd, uint64_t seed, uint64_t calls)
{
	/*
	 * At least two elements of a pfn_batch, 12 bytes each. With a single one
	 * batch_skip_carry() leaves it in use but empty, no PFN fits in after
	 * that, and an unmap ends inside a leaf.
	 */
	static const unsigned int limits[] = { 24, 64, 1024, 65536 };
	struct worker *me = &workers[0];
	struct worker *guest = &workers[MAX_WORKERS];
	const int writers_first = PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP;
	pthread_rwlockattr_t attr;
	enum kind kinds[NUM_IOAS];
	unsigned int i, k;
	long pinned;

	model_now.fd = fd;
	model_now.num_wrong_ids = 0;
	me->random = mix(seed);
	guest->random = mix(~seed);
	/* One of them has a domain */
	kinds[0] = 1 + pick(me, NUM_KINDS - 1);
	kinds[1] = pick(me, NUM_KINDS);

	for (i = 0; i != num_workers; i++) {
		if (!workers[i].state)
			workers[i].state = malloc(sizeof(struct model));
		if (!workers[i].state)
			return false;
		((struct model *)workers[i].state)->next_pages = 0;
	}
	if (!set_limit(me, limits[pick(me, ARRAY_SIZE(limits))]) ||
	    !ok(me, "IOAS", fuzz_ioas_alloc(me, fd, &devices.park_id)))
		return false;
	/* Else the thread that attaches and detaches would hardly get it */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, writers_first);
	for (k = 0; k != NUM_IOAS; k++) {
		pthread_rwlock_init(&model_now.ioas[k].lock, &attr);
		if (!setup_ioas(me, k, kinds[k]))
			return false;
	}
	for (i = 0; i != NUM_GUESTS; i++)
		if (!new_device(me, &devices.guests[i]))
			return false;
	ksft_print_msg("  %s%s, %u domains; %s%s, %u domains\n",
		       kind_names[kinds[0]],
		       model_now.ioas[0].pins ? " + pins" : "",
		       model_now.ioas[0].num_domains, kind_names[kinds[1]],
		       model_now.ioas[1].pins ? " + pins" : "",
		       model_now.ioas[1].num_domains);

	devices.stop = false;
	if (pthread_create(&guest->thread, NULL, guest_worker, guest))
		return false;
	run_workers(model_worker, seed, calls);
	__atomic_store_n(&devices.stop, true, __ATOMIC_RELAXED);
	pthread_join(guest->thread, NULL);
	if (failed())
		return false;

	pinned = pinned_pages();
	if (pinned != expected_pins())
		fuzz_fail(me, "%ld pages are pinned, not %ld", pinned,
			  expected_pins());
	for (i = 0; i != NUM_GUESTS; i++)
		if (devices.guests[i].hwpt_id)
			guest_goes(me, &devices.guests[i]);
	/* The close has to cope with what is left */
	if (chance(me, 50) && !failed())
		take_down(me);
	set_limit(me, 65536);
	for (i = 0; i != num_workers; i++)
		for (k = 0; k != NUM_IOAS; k++) {
			struct model *model = workers[i].state;

			if (model->windows[k].access == -1)
				continue;
			close(model->windows[k].access);
			fuzz_count(me, OP_CLOSE, 0);
		}
	return !failed();
}
