// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fuzzing of iommufd with IOMMU_IOAS_SPLIT and IOMMU_IOAS_JOIN: many threads,
 * random calls, valid and malformed ones.
 *
 * In some rounds a model knows what must happen (iommufd_split_fuzz_model.c).
 * In the others all threads fight over the same objects
 * (iommufd_split_fuzz_chaos.c). After each round all files are closed, and
 * every page that was pinned and every IOMMU table must have been given back.
 *
 * A part needs only parts above it, and the headers:
 *
 * _worker.c	calls, failures, threads
 * _bad.c	malformed calls
 * _window.c	the model: what is mapped
 * _users.c	the model: accesses and dirty bits
 * _join.c	the model: joins, and what holes are filled with
 * _model.c	the model: the calls of a thread
 * _round.c	the model: a round
 * _chaos.c	a round without a model
 *
 * A run is repeated by its seed, as far as threads can be:
 *
 * IOMMUFD_SPLIT_FUZZ_SEED	the seed, it is printed
 * IOMMUFD_SPLIT_FUZZ_CALLS	calls in all
 * IOMMUFD_SPLIT_FUZZ_THREADS	1 to 8; with 1 a run can be repeated exactly
 * IOMMUFD_SPLIT_FUZZ_ROUND	the round to begin with
 */
#include <fcntl.h>
#include <sys/capability.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include "iommufd_split_fuzz.h"

enum {
	DEFAULT_CALLS = 200000,
	DEFAULT_THREADS = 4,
	ROUND_CALLS = 10000,
	/* Every fourth round is chaos */
	CHAOS_EVERY = 4,
	HUGE_SIZE = 2 * 1024 * 1024,
	SMALL_BLOCK = 512 * 1024,
	/*
	 * For the slab, which is not exact. 10^6 calls leave 100 kB. KASAN
	 * keeps what was freed, up to 1/32 of the memory: raise
	 * IOMMUFD_SPLIT_FUZZ_SLAB_KB there.
	 */
	DEFAULT_SLAB_KB = 512,
};

static struct {
	uint64_t calls;
	unsigned int first_round;
	bool huge;
} config;

/* What must be as before when all files are closed */
struct account {
	long tables_kb;
	long iommu_pages;
	/* Pages pinned and not released, by anybody */
	long foll_pins;
	long vm_pin;
	long slab_kb;
	long tainted;
};

static void take_account(struct account *account)
{
	FILE *refresh = fopen("/proc/sys/vm/stat_refresh", "r");
	char line[64];

	/* Folds the counts that each CPU keeps to itself: they are exact then */
	if (refresh) {
		while (fgets(line, sizeof(line), refresh))
			;
		fclose(refresh);
	}
	account->tables_kb = number_in("/proc/meminfo", "SecPageTables:");
	account->iommu_pages = number_in("/proc/vmstat", "nr_iommu_pages");
	account->foll_pins = number_in("/proc/vmstat", "nr_foll_pin_acquired") -
			     number_in("/proc/vmstat", "nr_foll_pin_released");
	account->vm_pin = pinned_pages();
	account->slab_kb = number_in("/proc/meminfo", "SUnreclaim:");
	account->tainted = number_in("/proc/sys/kernel/tainted", "");
}

static struct account before, after;
/* False if a round failed before all was closed */
static bool accounted;

static void print_account(const char *what, const struct account *account)
{
	ksft_print_msg("%s: tables %ld kB, IOMMU pages %ld, pins %ld, VmPin %ld\n",
		       what, account->tables_kb, account->iommu_pages,
		       account->foll_pins, account->vm_pin);
}

static bool same_account(void)
{
	return before.tables_kb == after.tables_kb &&
	       before.iommu_pages == after.iommu_pages &&
	       before.foll_pins == after.foll_pins &&
	       before.vm_pin == after.vm_pin;
}

/*
 * The counts have no slack, but they may be late: the release of a file can be
 * left to a worker of the kernel, and without stat_refresh the CPUs fold their
 * counts once a second.
 */
static bool check_account(struct worker *me)
{
	unsigned int tries;

	accounted = true;
	for (tries = 0; tries != 50; tries++) {
		take_account(&after);
		if (same_account())
			break;
		usleep(100000);
	}
	if (!same_account()) {
		print_account("was", &before);
		print_account("is", &after);
		fuzz_fail(me, "something is left when all is closed");
	}
	if (after.tainted != before.tainted)
		fuzz_fail(me, "the kernel has complained: tainted %ld, was %ld",
			  after.tainted, before.tainted);
	return !failed();
}

static bool new_block(struct block *block, size_t size, bool file, bool huge)
{
	int flags = MAP_POPULATE | (huge ? MAP_HUGETLB : 0);
	int fd = -1;
	void *ptr;

	if (file) {
		fd = memfd_create("block", huge ? MFD_HUGETLB : 0);
		if (fd == -1 || ftruncate(fd, size))
			return false;
		flags |= MAP_SHARED;
	} else {
		flags |= MAP_PRIVATE | MAP_ANONYMOUS;
	}
	ptr = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (ptr == MAP_FAILED)
		return false;
	*block = (struct block){ .ptr = ptr, .slots = size / SLOT, .file = fd };
	for (size_t i = 0; i != size; i += 8)
		*(uint64_t *)(ptr + i) = mix((uintptr_t)ptr + i);
	return true;
}

/*
 * Two blocks of small and two of huge pages, by address and by file. Without
 * huge pages the leaves are small, and few splits have anything to do.
 */
static void setup_worker(struct worker *worker, unsigned int index)
{
	unsigned int i;

	worker->index = index;
	worker->scratch = mmap(NULL, SCRATCH_SIZE + PAGE,
			       PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (worker->scratch == MAP_FAILED ||
	    mprotect(worker->scratch + SCRATCH_SIZE, PAGE, PROT_NONE))
		ksft_exit_fail_perror("scratch memory");
	for (i = 0; i != NUM_BLOCKS; i++) {
		struct block *block = &worker->blocks[i];

		if (i >= 2 && new_block(block, HUGE_SIZE, i & 1, true))
			continue;
		if (i >= 2)
			config.huge = false;
		if (!new_block(block, SMALL_BLOCK, i & 1, false))
			ksft_exit_fail_perror("memory to map");
	}
}

/* Without this the pins of root would not be charged, and not be seen */
static void be_charged(void)
{
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };
	cap_value_t cap_list[1] = { CAP_IPC_LOCK };
	cap_t caps = cap_get_proc();

	if (setrlimit(RLIMIT_MEMLOCK, &limit))
		ksft_print_msg("RLIMIT_MEMLOCK stays as it is\n");
	if (!caps ||
	    cap_set_flag(caps, CAP_EFFECTIVE, 1, cap_list, CAP_CLEAR) ||
	    cap_set_proc(caps))
		ksft_print_msg("CAP_IPC_LOCK cannot be dropped\n");
	cap_free(caps);
}

/* Is there a split at all, and can it cut large leaves? */
static void probe(struct worker *me)
{
	int fd = open("/dev/iommu", O_RDWR);
	__u32 ioas_id, stdev_id, hwpt_id;
	struct iommu_hw_info info = { .size = sizeof(info) };
	int err;

	if (fd == -1 && errno == EACCES)
		ksft_exit_skip("cannot open /dev/iommu, run as root\n");
	if (fd == -1)
		ksft_exit_skip("no /dev/iommu, enable CONFIG_IOMMUFD\n");
	if (fuzz_ioas_alloc(me, fd, &ioas_id))
		ksft_exit_fail_msg("no IOMMU_IOAS_ALLOC\n");
	err = fuzz_split(me, fd, ioas_id, 0, PAGE);
	if (err == ENOTTY || err == EOPNOTSUPP)
		ksft_exit_skip("no IOMMU_IOAS_SPLIT, enable CONFIG_IOMMUFD_SPLIT\n");
	err = fuzz_mock_device(me, fd, ioas_id, &stdev_id, &info.dev_id,
			       &hwpt_id);
	if (err == ENOTTY)
		ksft_exit_skip("no mock devices, enable CONFIG_IOMMUFD_TEST\n");
	if (err)
		ksft_exit_fail_msg("no mock device: %s\n", strerror(err));
	if (CALL(me, OP_HW_INFO, fd, IOMMU_GET_HW_INFO, info))
		ksft_exit_fail_msg("no IOMMU_GET_HW_INFO\n");
	fuzz_can_split = info.out_capabilities & IOMMU_HW_CAP_HITLESS_SPLIT;
	close(fd);
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static bool run_round(bool chaos, uint64_t seed, uint64_t calls)
{
	struct worker *me = &workers[0];
	bool good;
	int fd;

	ksft_print_msg("round %u, %s\n", fuzz_run.round,
		       chaos ? "chaos" : "model");
	if (chaos)
		return chaos_round(seed, calls) && check_account(me);

	fd = open("/dev/iommu", O_RDWR);
	if (fuzz_count(me, OP_OPEN, fd == -1 ? errno : 0))
		return false;
	good = model_round(fd, seed, calls);
	close(fd);
	fuzz_count(me, OP_CLOSE, 0);
	return good && check_account(me);
}

static void print_summary(void)
{
	uint64_t splits = 0, cuts = 0, joins = 0, checks = 0;
	uint32_t total[MAX_ERRNO] = {};
	unsigned int op, err, i;
	char line[512];

	for (op = 0; op != OP_NR; op++) {
		uint32_t sums[MAX_ERRNO] = {};
		unsigned int used = 0;

		for (i = 0; i <= MAX_WORKERS; i++)
			for (err = 0; err != MAX_ERRNO; err++)
				sums[err] += workers[i].stats[op][err];
		for (err = 0; err != MAX_ERRNO; err++) {
			if (!sums[err])
				continue;
			if (op == OP_CHECK_MAP)
				checks += sums[err];
			else
				total[err] += sums[err];
			used += snprintf(line + used, sizeof(line) - used,
					 " %s %u",
					 err ? strerrorname_np(err) : "ok",
					 sums[err]);
		}
		if (used)
			ksft_print_msg("%-14s%s\n", op_names[op], line);
	}
	i = 0;
	for (err = 0; err != MAX_ERRNO; err++)
		if (total[err])
			i += snprintf(line + i, sizeof(line) - i, " %s %u",
				      err ? strerrorname_np(err) : "ok",
				      total[err]);
	ksft_print_msg("errno:%s\n", line);
	for (i = 0; i <= MAX_WORKERS; i++) {
		splits += workers[i].splits;
		cuts += workers[i].cuts;
		joins += workers[i].joins;
	}
	ksft_print_msg("slab %ld kB, was %ld kB\n", after.slab_kb,
		       before.slab_kb);
	if (!config.huge)
		ksft_print_msg("no free huge pages of 2M, so most leaves are small\n");
	if (!fuzz_can_split)
		ksft_print_msg("large leaves cannot be split\n");
	print_account("was", &before);
	print_account("is", &after);
	ksft_print_msg("summary: seed %llu, %u threads, %u s, %llu calls, ",
		       (unsigned long long)fuzz_run.seed, num_workers,
		       seconds(), (unsigned long long)all_calls());
	printf("%llu translations checked, %llu splits, %llu cuts, %llu joins\n",
	       (unsigned long long)checks, (unsigned long long)splits,
	       (unsigned long long)cuts, (unsigned long long)joins);
}

int main(void)
{
	bool good[2] = { true, true };
	unsigned int i;
	long slab_kb;

	ksft_print_header();
	if (sysconf(_SC_PAGE_SIZE) != PAGE)
		ksft_exit_skip("needs pages of 4K\n");
	fuzz_run.started = time(NULL);
	fuzz_run.seed = setting("IOMMUFD_SPLIT_FUZZ_SEED", fuzz_run.started);
	config.calls = setting("IOMMUFD_SPLIT_FUZZ_CALLS", DEFAULT_CALLS);
	config.first_round = setting("IOMMUFD_SPLIT_FUZZ_ROUND", 0);
	slab_kb = setting("IOMMUFD_SPLIT_FUZZ_SLAB_KB", DEFAULT_SLAB_KB);
	num_workers = setting("IOMMUFD_SPLIT_FUZZ_THREADS", DEFAULT_THREADS);
	if (num_workers < 1 || num_workers > MAX_WORKERS)
		num_workers = DEFAULT_THREADS;
	config.huge = true;
	fuzz_run.round = config.first_round;
	probe(&workers[0]);
	ksft_set_plan(4);
	ksft_print_msg("IOMMUFD_SPLIT_FUZZ_SEED=%llu, %llu calls, %u threads\n",
		       (unsigned long long)fuzz_run.seed,
		       (unsigned long long)config.calls, num_workers);
	/* The last one attaches and detaches, and maps nothing */
	for (i = 0; i != num_workers; i++)
		setup_worker(&workers[i], i);
	workers[MAX_WORKERS].index = MAX_WORKERS;
	be_charged();
	take_account(&before);

	while (all_calls() < config.calls && !failed()) {
		uint64_t seed = mix(fuzz_run.seed ^ mix(fuzz_run.round));
		uint64_t left = config.calls - all_calls();
		bool chaos = fuzz_run.round % CHAOS_EVERY == CHAOS_EVERY - 1;

		if (left > ROUND_CALLS)
			left = ROUND_CALLS;
		accounted = false;
		good[chaos] = run_round(chaos, seed, left);
		fuzz_run.round++;
		/* By now the kernel has filled its caches */
		if (fuzz_run.round == config.first_round + 2 * CHAOS_EVERY)
			before.slab_kb = after.slab_kb;
	}
	print_summary();

	ksft_test_result(good[0], "rounds with a model\n");
	ksft_test_result(good[1], "rounds of chaos\n");
	if (!accounted) {
		ksft_test_result_skip("pins and tables, after a failure\n");
		ksft_test_result_skip("slab, after a failure\n");
		ksft_finished();
	}
	ksft_test_result(same_account() && after.tainted == before.tainted,
			 "pins and tables are back, no complaint\n");
	ksft_test_result(after.slab_kb - before.slab_kb < slab_kb,
			 "the slab does not grow\n");
	ksft_finished();
}
