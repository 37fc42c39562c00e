#!/bin/sh
# A CNI plugin for tests: a routed veth, addresses counted up in a file beside it.
set -e
dir=$(dirname "$0")
echo "$CNI_COMMAND $CNI_CONTAINERID" >> "$dir/calls"
host=t$(printf %.10s "$CNI_CONTAINERID")
peer=p$(printf %.10s "$CNI_CONTAINERID")
# One at a time: the counter is shared.
exec 9> "$dir/lock"
flock 9
case "$CNI_COMMAND" in
ADD)
  if [ -f "$dir/refuse" ]; then
    echo '{"cniVersion":"1.1.0","code":11,"msg":"try again later","details":"the test says so"}'
    exit 1
  fi
  number=$(($(cat "$dir/next" 2>/dev/null || echo 1) + 1))
  echo "$number" > "$dir/next"
  ip link add "$host" type veth peer name "$peer"
  ip link set "$peer" netns "$(echo "$CNI_NETNS" | cut -d/ -f3)" name eth0
  ip link set "$host" up
  ip route add "10.244.9.$number/32" dev "$host"
  nsenter --net="$CNI_NETNS" ip link set lo up
  nsenter --net="$CNI_NETNS" ip addr add "10.244.9.$number/24" dev eth0
  nsenter --net="$CNI_NETNS" ip link set eth0 up
  nsenter --net="$CNI_NETNS" ip route add default via 10.244.9.1
  echo "{\"cniVersion\":\"1.1.0\",\"ips\":[{\"address\":\"10.244.9.$number/24\",\"gateway\":\"10.244.9.1\"}]}"
  ;;
DEL)
  ip link delete "$host" 2>/dev/null || true
  ;;
esac
