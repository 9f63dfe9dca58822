-- Starts what was stopped. An OnDemand Model is woken, and a Failed one tried again, by a new value of the annotation.
local os = require("os")

if obj.spec.state == "Stopped" and obj.spec.idle == nil then
  obj.spec.state = "Running"
  return obj
end

-- idle belongs to OnDemand Models, so that is what it was before it was stopped.
if obj.spec.state == "Stopped" then
  obj.spec.state = "OnDemand"
end
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["berth.dev/start"] = os.date("!%Y-%m-%dT%H:%M:%SZ")
return obj
