#!/bin/sh
# A node of the mesh that compose.yaml describes: the first start founds the mesh or joins it, every start runs the node.
#   offgrid-start found MESH NAME...   founds it, and leaves an invite for each NAME in INVITES
#   offgrid-start join NAME            takes that invite
set -eu
NODE_DIR=${NODE_DIR:-/data}
INVITES=${INVITES:-/invites}
PATIENCE_S=${PATIENCE_S:-120}

is_there() { [ -e "$NODE_DIR/offgrid.toml" ]; }

stopping=no

patiently() { # CONDITION...: until it holds, or all is to end
    waited=0
    until [ "$stopping" = yes ] || "$@" >/dev/null 2>&1; do
        [ "$waited" -lt "$PATIENCE_S" ] || { echo "offgrid-start: not after $PATIENCE_S s: $*" >&2; exit 5; }
        waited=$((waited + 1))
        sleep 1
    done
}

invite() { # each NAME that has none yet and has not used one
    for name in "$@"; do
        [ -e "$INVITES/$name" ] && continue
        (umask 077 && offgrid --node-dir "$NODE_DIR" --json mesh invite |
            python3 -c 'import json, sys; print(json.load(sys.stdin)["token"])' > "$INVITES/.$name")
        mv "$INVITES/.$name" "$INVITES/$name"
    done
}

case "${1:-}" in
found)
    mesh=$2
    shift 2
    is_there || offgrid-node init --mesh "$mesh" --name founder --dir "$NODE_DIR"
    offgrid-node run --dir "$NODE_DIR" &
    node=$!
    trap 'stopping=yes; kill -TERM "$node"' TERM INT
    patiently offgrid --node-dir "$NODE_DIR" status
    [ "$stopping" = yes ] || invite "$@"
    code=0
    wait "$node" || code=$?
    if [ "$code" -gt 128 ]; then # the signal ended the wait, and not the node
        code=0
        wait "$node" || code=$?
    fi
    exit "$code"
    ;;
join)
    is_there && exec offgrid-node run --dir "$NODE_DIR"
    patiently test -s "$INVITES/$2"
    exec offgrid-node join "$(cat "$INVITES/$2")" --name "$2" --dir "$NODE_DIR" --timeout "$PATIENCE_S"
    ;;
*)
    echo "usage: offgrid-start found MESH NAME... | join NAME" >&2
    exit 2
    ;;
esac
