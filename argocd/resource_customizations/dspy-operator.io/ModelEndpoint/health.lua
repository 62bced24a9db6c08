-- The same for each kind: what the conditions of kstatus say, which is what Flux and `helm --wait` read too.
-- A sync fails on Degraded and stays open on Progressing and Suspended, so that a pause that spec asks for is Healthy.
local health = { status = "Progressing", message = "waiting for the operator" }
if obj.metadata.deletionTimestamp ~= nil then
  health.message = "is being deleted"
  return health
end
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end

local function holds(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end

local function say(status, condition)
  health.status = status
  health.message = condition.reason
  if condition.message ~= nil and condition.message ~= "" then
    health.message = condition.reason .. ": " .. condition.message
  end
end

if holds("Stalled") then
  say("Degraded", conditions.Stalled)
elseif obj.spec.suspend and conditions.Ready ~= nil then
  say("Healthy", conditions.Ready)
elseif holds("Reconciling") then
  say("Progressing", conditions.Reconciling)
elseif holds("Ready") then
  say("Healthy", conditions.Ready)
end
return health
