-- What can be done with a Model now. Argo CD shows the rest greyed out.
local spec = obj.spec or {}
local status = obj.status or {}
local deleted = obj.metadata.deletionTimestamp ~= nil

local accepted = true
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Accepted" and condition.status == "False" then
    accepted = false
  end
end

-- With replicas: 0 a start changes nothing, and a spec that cannot be carried out has to be corrected.
local resting = status.phase == "Stopped" and spec.state == "OnDemand"
local startable = spec.state == "Stopped" or resting or status.phase == "Failed"
startable = startable and accepted and spec.replicas ~= 0

local serving = { Loading = true, Ready = true, Updating = true, Degraded = true }
local restartable = spec.state ~= "Stopped" and serving[status.phase] and (status.replicas or 0) > 0

return {
  start = {
    displayName = "Start",
    iconClass = "fa fa-fw fa-play-circle",
    disabled = deleted or not startable,
  },
  stop = {
    displayName = "Stop",
    iconClass = "fa fa-fw fa-stop-circle",
    disabled = deleted or spec.state == "Stopped",
  },
  restart = {
    displayName = "Restart",
    iconClass = "fa fa-fw fa-redo",
    disabled = deleted or not restartable,
  },
}
