-- A Model or ModelCache is healthy when it is as declared, which stopped on purpose is too, and degraded when a person
-- has to do something. All else is on its way: a sync waits for it, and does not fail.
local health = { Ready = "Healthy", Stopped = "Healthy", Failed = "Degraded" }

local status = obj.status or {}
if status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "Berth has not looked at the latest change yet" }
end

local message = status.phase or ""
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Ready" then
    message = condition.reason .. ": " .. condition.message
  end
end
return { status = health[status.phase] or "Progressing", message = message }
