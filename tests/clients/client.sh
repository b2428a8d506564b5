#!/usr/bin/env bash
# A client of the wire protocol: client.sh HOST PORT uses each operation once, and prints what comes back.
set -eu
connect() { exec 3<>"/dev/tcp/$1/$2"; }
receive() { IFS= read -r -t 20 reply <&3; printf '%s\n' "$reply"; }
ask() { printf '%s\n' "$1" >&3; receive; }

connect "$1" "$2"
ask '{"op":"ping"}'
ask '{"op":"session"}'
[[ $reply =~ \"session\":\ \"([^\"]*)\" ]] && mine="\"session\":\"${BASH_REMATCH[1]}\""
ask "{\"op\":\"session\",$mine}"
ask "{\"key\":\"snack\",\"value\":\"chips\",$mine,\"seq\":1}"
ask '{"key":"snack"}'
ask '{"op":"cas","key":"snack","expected":"chips","value":"nuts"}'
printf '%s\n' "{\"op\":\"incr\",\"key\":\"visits\",\"by\":2,$mine,\"seq\":2}" >&3
exec 3>&- && connect "$1" "$2" # The answer is lost: the same request under the same seq has it.
ask "{\"op\":\"incr\",\"key\":\"visits\",\"by\":2,$mine,\"seq\":2}"
ask '{"key":"crumbs","value":1,"ttl":3600}'
ask '{"op":"scan","prefix":"s","limit":10}'
ask "{\"op\":\"txn\",\"if\":[{\"key\":\"snack\",\"equals\":\"nuts\"}],\"then\":[{\"op\":\"incr\",\"key\":\"visits\",\"by\":1},{\"op\":\"get\",\"key\":\"visits\"}],$mine,\"seq\":3}"
ask '{"op":"watch","prefix":"sn","id":"w"}'
ask '{"op":"delete","key":"snack"}' && receive # The reply and the event, in either order.
ask '{"op":"unwatch","id":"w"}'
ask '{"op":"status"}'
