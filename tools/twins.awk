# SPDX-License-Identifier: GPL-2.0-only
# Reads cases as tap.awk prints them, those of upstream's generic_pt suites in one boot on the Rust tables (amdv1_iommu_test)
# and on the C ones (amdv1_c_iommu_test), and prints a failure for each that passes on C and is skipped, or is not there, on
# Rust: that suite judges nothing there, and nobody would notice.

BEGIN { FS = OFS = "\t" }

$2 ~ /_(fmt|iommu)_test\./ {
	name = $2
	# The format is named in the suite and in the configuration.
	twin = sub(/_c_fmt_test\./, "_fmt_test.", name) + sub(/_c_iommu_test\./, "_iommu_test.", name)
	sub(/_c_cfg_/, "_cfg_", name)
	if (!twin)
		rust[name] = $1
	else if ($1 == "pass")
		c[name]
}

END {
	for (name in c)
		if (!(name in rust))
			print "fail", name, "runs on the C tables only"
		else if (rust[name] == "skip")
			print "fail", name, "is skipped, and passes on the C tables"
}
