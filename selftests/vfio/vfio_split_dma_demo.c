// SPDX-License-Identifier: GPL-2.0-only
/*
 * Shows a person what IOMMU_IOAS_SPLIT does: one 1G mapping, a device that
 * copies through it, two holes that are cut into it meanwhile.
 *
 *   vfio_split_dma_demo [SAMPLES] [BDF]
 *
 * SAMPLES gets lines for a plot: "sample SECONDS COPIES BYTES" and
 * "event SECONDS LABEL".
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/compiler.h>
#include <linux/kernel.h>
#include <linux/sizes.h>

#include <libvfio.h>

#include "split_dma.h"

#define SAMPLE_US 20000
#define SCENE_MS 1500
#define STRAY_SIZE 512

static struct split_dma dma;
static const char *bdf;
static FILE *samples;
static u64 began;
static const char *no_tables;

static double seconds(void)
{
	return (now_ns() - began) / 1e9;
}

static void __noreturn __printf(1, 2) fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("demo: failed: ");
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
	fflush(stdout);
	/* No tidying up: the kernel takes the device and the memory back */
	_exit(KSFT_FAIL);
}

static void note_event(double at, const char *label)
{
	if (samples)
		fprintf(samples, "event %.6f %s\n", at, label);
}

/* Let the device work, and note how it does. */
static void watch(unsigned int ms)
{
	u64 end = now_ns() + ms * 1000000ULL;

	while (now_ns() < end) {
		if (samples)
			fprintf(samples, "sample %.6f %lu %lu\n", seconds(),
				dma.copies, dma.bytes);
		usleep(SAMPLE_US);
	}
}

static void check_dma(void)
{
	u64 faults = split_dma_unexpected_faults(&dma);

	if (faults)
		fail("%lu DMA faults were reported where there should be none", faults);
	if (dma.failed || dma.mismatched)
		fail("the device noticed: %lu copies did not finish, %lu were wrong",
		     dma.failed, dma.mismatched);
}

/* The page table ----------------------------------------------------------- */

struct row {
	u64 start;
	u64 end;
	u64 size;	/* of the leaves, 0 for a hole */
	u64 nr;
};

static void print_row(const char *branch, const struct row *row)
{
	char what[64];

	if (row->size)
		snprintf(what, sizeof(what), "%3lu x %s", row->nr, leaf_size_name(row->size));
	else
		snprintf(what, sizeof(what), "hole, %s", leaf_size_name(row->end - row->start));
	printf("  %s%-*s 0x%lx - 0x%lx\n", branch, (int)(34 - strlen(branch)), what,
	       row->start, row->end - 1);
}

/* Neighbours of one size become a row; what is not mapped becomes a hole. */
static u32 table_rows(const struct ptable *pt, u64 start, u64 end, struct row *rows,
		      u32 max)
{
	u64 at = start;
	u32 i, nr = 0;

	for (i = 0; i <= pt->nr; i++) {
		const struct leaf *leaf = i < pt->nr ? &pt->leaf[i] : NULL;
		u64 next = leaf && leaf->iova < end ? leaf->iova : end;

		if (leaf && leaf->iova < start)
			continue;
		if (next > at && nr < max)
			rows[nr++] = (struct row) { .start = at, .end = next };
		if (next == end)
			break;
		at = leaf->iova + leaf->size;
		/* All small leaves of a 2M range are rows of a table of their own */
		if (nr && rows[nr - 1].size == leaf->size &&
		    rows[nr - 1].end == leaf->iova &&
		    (leaf->size >= SZ_2M || leaf->iova % SZ_2M)) {
			rows[nr - 1].end = at;
			rows[nr - 1].nr++;
		} else if (nr < max) {
			rows[nr++] = (struct row) { leaf->iova, at, leaf->size, 1 };
		}
	}
	return nr;
}

static void draw_table(const char *title)
{
	struct row rows[64];
	static u32 above;	/* tables that were there before */
	char sum[256];
	struct ptable pt;
	u64 iova = dma.iova[0], table = -1;
	u32 i, nr;

	printf("\n%s\n", title);
	no_tables = ptable_read(&pt, dma.iommu, iova, dma.size);
	if (no_tables) {
		printf("  not shown: %s\n", no_tables);
		return;
	}

	nr = table_rows(&pt, iova, iova + dma.size, rows, ARRAY_SIZE(rows));
	if (!above)
		above = pt.tables;
	if (nr == 1 && rows[0].size == SZ_1G)
		printf("  1G entry, a leaf                   0x%lx - 0x%lx\n", rows[0].start,
		       rows[0].end - 1);
	else
		printf("  1G entry -> table of 512\n");
	for (i = 0; i < nr && rows[0].size != SZ_1G; i++) {
		bool small = rows[i].end - rows[i].start < SZ_2M ||
			     (rows[i].size && rows[i].size < SZ_2M);
		u64 parent = rows[i].start / SZ_2M;
		bool last = i + 1 == nr || rows[i + 1].start / SZ_2M != parent;

		if (!small) {
			print_row(i + 1 == nr ? "`-- " : "|-- ", &rows[i]);
			continue;
		}
		if (parent != table)
			printf("  |-- 2M entry -> table of 512\n");
		table = parent;
		print_row(last ? "|     `-- " : "|     |-- ", &rows[i]);
	}
	printf("  = %s, %u table%s below the 1G entry\n",
	       ptable_summary(&pt, sum, sizeof(sum)), pt.tables - above,
	       pt.tables - above == 1 ? "" : "s");
	ptable_free(&pt);
}

/* The story ---------------------------------------------------------------- */

static void step(double at, const char *what, u64 ns, u64 copies)
{
	printf("  [%6.3f s] %-32s %8.1f us   %lu copies meanwhile, all correct\n", at,
	       what, ns / 1e3, copies);
}

static void cut(u64 off, u64 len)
{
	char what[64];
	u64 ns, copies;
	double at;
	int ret;

	snprintf(what, sizeof(what), "split %s at 0x%lx", leaf_size_name(len),
		 dma.iova[0] + off);
	split_dma_aim(&dma, 0, AIM_EDGES, off, len);
	split_dma_lap(&dma);
	at = seconds();
	copies = dma.overlapped;
	ret = split_dma_split(&dma, 0, off, len, &ns);
	split_dma_lap(&dma);
	if (ret)
		fail("IOMMU_IOAS_SPLIT: %s", strerror(-ret));
	check_dma();
	step(at, what, ns, dma.overlapped - copies);
	snprintf(what, sizeof(what), "split %s", leaf_size_name(len));
	note_event(at, what);
}

static void open_hole(u64 off, u64 len)
{
	u64 ns, copies, unmapped;
	char what[64];
	double at;
	int ret;

	snprintf(what, sizeof(what), "unmap %s", leaf_size_name(len));
	split_dma_avoid(&dma, off, len);
	split_dma_aim(&dma, 0, AIM_OUTSIDE, off, len);
	at = seconds();
	copies = dma.copies;
	ns = now_ns();
	ret = split_dma_unmap(&dma, 0, off, len, &unmapped);
	ns = now_ns() - ns;
	copies = dma.copies - copies;
	split_dma_lap(&dma);
	if (ret)
		fail("IOMMU_IOAS_UNMAP: %s", strerror(-ret));
	if (unmapped != len)
		fail("IOMMU_IOAS_UNMAP: %lu bytes instead of %lu", unmapped, len);
	check_dma();
	step(at, what, ns, copies);
	snprintf(what, sizeof(what), "unmap %s", leaf_size_name(len));
	note_event(at, what);
}

static void try_hole(u64 off, bool write)
{
	const char *err = split_dma_stray(&dma, 0, off, STRAY_SIZE, write);

	if (err)
		fail("stray DMA %s 0x%lx: %s", write ? "to" : "from",
		     dma.iova[0] + off, err);
	printf("  device %s 0x%lx: blocked\n    %s\n", write ? "writes to" : "reads from",
	       dma.iova[0] + off, dma.last_fault.text);
}

int main(int argc, char *argv[])
{
	const u64 off_2m = SZ_512M, off_4k = SZ_512M + SZ_256M + SZ_512K;
	u64 copies, bytes;
	const char *err;
	double from;

	setvbuf(stdout, NULL, _IOLBF, 0);
	bdf = vfio_selftests_get_bdf(&argc, argv);
	if (argc > 1) {
		samples = fopen(argv[1], "w");
		if (!samples)
			fail("cannot write %s: %s", argv[1], strerror(errno));
	}

	err = split_dma_init(&dma, bdf, BACKING_PUD, false, 1);
	if (err)
		fail("%s", err);
	if (!split_dma_capable(&dma))
		fail("kernel or IOMMU cannot split live (no IOMMU_HW_CAP_HITLESS_SPLIT)");

	printf("Device %s (%s) copies inside 1 GiB that is mapped once, in one piece.\n",
	       bdf, dma.device->driver.ops->name);
	draw_table("Page table before:");

	began = now_ns();
	split_dma_start(&dma);
	copies = dma.copies;
	bytes = dma.bytes;
	from = seconds();
	watch(SCENE_MS);
	printf("\nDMA runs: %.0f copies a second, %.1f MB/s, every byte is checked.\n\n",
	       (dma.copies - copies) / (seconds() - from),
	       (dma.bytes - bytes) / (seconds() - from) / 1e6);

	cut(off_2m, SZ_2M);
	watch(SCENE_MS);
	open_hole(off_2m, SZ_2M);
	watch(SCENE_MS);
	draw_table("Page table with one hole:");
	printf("\n");
	cut(off_4k, SZ_4K);
	watch(SCENE_MS);
	open_hole(off_4k, SZ_4K);
	watch(SCENE_MS);
	draw_table("Page table with both holes:");
	check_dma();

	printf("\n%lu copies, %lu MB checked byte by byte; the slowest copy took %.1f ms.\n",
	       dma.copies, dma.bytes / 1000000, dma.longest_ns / 1e6);
	printf("\nStray DMA into the holes:\n");
	if (samples)
		fclose(samples);
	samples = NULL;
	try_hole(off_2m + SZ_1M, true);
	try_hole(off_4k, false);
	split_dma_lap(&dma);
	check_dma();
	split_dma_stop(&dma);
	split_dma_cleanup(&dma);

	printf("\ndemo: splits=%lu faults=%lu mismatches=%lu stray_dma_blocked=yes\n",
	       dma.splits, dma.faults.suppressed, dma.mismatched + dma.failed);
	return dma.faults.suppressed ? KSFT_FAIL : KSFT_PASS;
}
