// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs the operations by turns on all tables, round after round, and prints
 *
 *   iommu_pt_rust_bench: ROUND FORMAT PROVIDER CALLS UNITS OPERATION
 *
 * where UNITS is the time of all CALLS in ns or, with the parameter cycles=1,
 * in cycles with interrupts off: instructions, in an emulator that counts a
 * cycle for each. Round 0 makes the tables and warms up; ignore it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/reboot.h>
#include <linux/timex.h>

#include "bench.h"

struct bench {
	const struct bench_provider *provider;
	unsigned int round;
	u64 start;
	unsigned long flags;
};

static unsigned int rounds = 16;
module_param(rounds, uint, 0);
MODULE_PARM_DESC(rounds, "Times that each operation is measured (16)");

static bool cycles;
module_param(cycles, bool, 0);
MODULE_PARM_DESC(cycles, "Print cycles, measured with interrupts off, in place of ns (0)");

static bool power_off;
module_param(power_off, bool, 0);
MODULE_PARM_DESC(power_off, "Switch the machine off at the end (0)");

void bench_start(struct bench *bench)
{
	if (cycles) {
		local_irq_save(bench->flags);
		bench->start = get_cycles();
	} else {
		bench->start = ktime_get_ns();
	}
}

void bench_stop(struct bench *bench, const char *what, unsigned long calls)
{
	u64 units;

	if (cycles) {
		units = get_cycles() - bench->start;
		local_irq_restore(bench->flags);
	} else {
		units = ktime_get_ns() - bench->start;
	}
	pr_info("%u %s %s %lu %llu %s\n", bench->round,
		bench->provider->format, bench->provider->name, calls, units,
		what);
}

gfp_t bench_gfp(struct bench *bench)
{
	return cycles ? GFP_ATOMIC : GFP_KERNEL;
}

static int bench_round(struct bench_table **tables, unsigned int round)
{
	unsigned int i;
	int ret;

	for (i = 0; i != bench_num_providers; i++) {
		struct bench bench = {
			.provider = &bench_providers[i],
			.round = round,
		};

		ret = bench_operations(&bench, tables[i]);
		ret = ret ?: bench_floors(&bench);
		ret = ret ?: bench_split(&bench, tables[i]);
		ret = ret ?: bench_memory(&bench);
		if (ret) {
			pr_err("%s %s failed: %pe\n",
			       bench.provider->format, bench.provider->name,
			       ERR_PTR(ret));
			return ret;
		}
	}
	return 0;
}

static int __init bench_init(void)
{
	struct bench_table *tables[10] = {};
	unsigned int i;
	int ret = 0;

	if (WARN_ON(bench_num_providers > ARRAY_SIZE(tables)))
		return -EINVAL;
	for (i = 0; i != bench_num_providers; i++) {
		tables[i] = bench_table_alloc(&bench_providers[i]);
		if (IS_ERR(tables[i])) {
			ret = PTR_ERR(tables[i]);
			tables[i] = NULL;
			break;
		}
	}
	for (i = 0; !ret && i <= rounds; i++)
		ret = bench_round(tables, i);
	for (i = 0; i != ARRAY_SIZE(tables); i++)
		if (tables[i])
			bench_table_free(tables[i]);
	pr_info("%s\n", ret ? "failed" : "done");
	if (power_off)
		kernel_power_off();
	return ret;
}
late_initcall(bench_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Times the C and the Rust IOMMU page tables");
MODULE_IMPORT_NS("GENERIC_PT_IOMMU");
