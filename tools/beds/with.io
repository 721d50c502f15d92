# BED+io: a disk and a second network card on the same wire, for the kernel's own drivers. What is written to the disk
# goes when QEMU ends.
# shellcheck shell=bash disable=SC2054,SC2154
bed_args+=(-device pcie-root-port,id=port1 -device igb,bus=port1,netdev=n1 -netdev hubport,id=n1,hubid=0
	-drive if=none,id=d0,driver=null-co,size=512M,read-zeroes=on,snapshot=on -device nvme,serial=io,drive=d0)
bed_append+=' iommu.strict=1'
