{{- define "dspy-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{- /* The release's name, unless it says nothing about what it is. */ -}}
{{- define "dspy-operator.fullname" -}}
{{- $name := include "dspy-operator.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "dspy-operator.serviceAccount" -}}
{{- default (include "dspy-operator.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "dspy-operator.selector" -}}
app.kubernetes.io/name: {{ include "dspy-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dspy-operator.labels" -}}
{{ include "dspy-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* (dict "image" .Values.image "default" .Chart.AppVersion) -> repository:tag or repository@digest */ -}}
{{- define "dspy-operator.image" -}}
{{- $tag := default .default .image.tag -}}
{{- printf "%s%s%s" .image.repository (ternary "@" ":" (hasPrefix "sha256:" $tag)) $tag -}}
{{- end -}}

{{- /* CEL: a list of a policy's parameters, one entry a line; a key that is not there is an empty list. */ -}}
{{- define "dspy-operator.policyList" -}}
params.?data.?{{ . }}.orValue('').split('\n').map(line, line.trim()).filter(line, line != '')
{{- end -}}

{{- /* CEL: the end of every refusal, from a variable that is a list: what is allowed, where, and who gives more. */ -}}
{{- define "dspy-operator.policyAllowed" -}}
' is not allowed; namespace "' + request.namespace + '" (policy "' + params.?data.?profile.orValue('') + '") allows ' + (variables.{{ . }}.size() == 0 ? 'none' : variables.{{ . }}.join(', ')) + '. Ask ' + params.?data.?contact.orValue('')
{{- end -}}
