import logging

# peft imports bitsandbytes where it is installed, which on some CPUs then asks for a package that loads kernels from
# the hub. Here, because whatever imports peft, in whichever process, has imported this before.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
