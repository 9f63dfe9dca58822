-- New servers replace the ones that run, as spec.rollout says.
local os = require("os")

obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["berth.dev/restart"] = os.date("!%Y-%m-%dT%H:%M:%SZ")
return obj
