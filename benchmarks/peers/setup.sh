#!/usr/bin/env bash
# setup.sh DIR: the virtual environments of the peers that benchmarks/serving.py and clean_peer.py run, in DIR (outside
# the checkout).
# One that does not install is said and skipped: they print it as missing.
set -u
home=${1:?usage: setup.sh DIR}
python=${PYTHON:-python3.11}

install() { # NAME REQUIREMENT…
  name=$1; shift
  "$python" -m venv "$home/$name" && "$home/$name/bin/pip" install --quiet "$@" || echo "$name does not install"
}

install trl trl==1.16.0 torch transformers datasets jinja2
install llamafactory llamafactory==0.9.5
install swift ms-swift==4.6.0 torch
install axolotl axolotl==0.19.0 torch
install data-juicer py-data-juicer==1.6.1 aiohttp

# LLaMA-Factory imports torchaudio; where there is no build of it that fits, an empty module will do for text.
if ! "$home/llamafactory/bin/python" -c 'import torchaudio' 2>/dev/null; then
  "$home/llamafactory/bin/pip" uninstall --quiet --yes torchaudio torchvision
  site=$("$home/llamafactory/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  mkdir -p "$site/torchaudio" && : > "$site/torchaudio/__init__.py"
fi
