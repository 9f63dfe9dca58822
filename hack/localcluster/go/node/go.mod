module berth.dev/hack/node

go 1.26.0
