-- Nobody declares anything in a GPUNode, so there is nothing that it could fall short of: what the agent found is shown.
local summary = (obj.status or {}).summary or {}
return { status = "Healthy", message = summary.health or "the agent on this node has not reported yet" }
